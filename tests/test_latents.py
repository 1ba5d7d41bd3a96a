import numpy as np
import pytest

from pipeline.generators.latents import SPLITS, sample_z, split_seeds
from pipeline.runtime.errors import InputError

SIZES = {"train": 50, "validation": 7, "test": 9, "pool": 3}


def test_no_two_samples_share_a_seed():
    seeds = [split_seeds(SIZES, first) for first in (0, 1, 2)]
    assert all(tuple(s) == SPLITS for s in seeds)
    assert [len(values) for values in seeds[0].values()] == list(SIZES.values())
    every = np.concatenate([values for s in seeds for values in s.values()])
    assert len(np.unique(every)) == len(every)


def test_full_splits_stay_apart():
    seeds = split_seeds(dict.fromkeys(SPLITS, 1_000_000), 3)
    following = split_seeds({"train": 1}, 4)["train"][0]
    ends = [seeds[split][[0, -1]] for split in SPLITS]
    assert all(a[1] < b[0] for a, b in zip(ends, [*ends[1:], [following]], strict=True))


@pytest.mark.parametrize("split", SPLITS)
def test_growing_a_split_leaves_all_others_and_its_own_beginning(split):
    before, after = split_seeds(SIZES, 1), split_seeds(SIZES | {split: 100}, 1)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][: len(values)], values)
        assert len(after[name]) == (100 if name == split else len(values))


def test_a_row_depends_on_its_own_seed_alone():
    z = sample_z([5, 6, 7], 16)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(sample_z([7, 5], 16), z[[2, 0]])
    assert len(np.unique(z)) == z.size
    assert sample_z([], 16).shape == (0, 16)


def test_z_is_standard_normal():
    z = sample_z(range(500), 64)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    assert abs(np.corrcoef(z[:-1].ravel(), z[1:].ravel())[0, 1]) < 0.02, "neighboring seeds"


def test_the_draws_of_a_seed_are_pinned():
    # Stores, masks and metrics of earlier runs belong to these values.
    expected = [[1.7291036, -1.4284534, 1.0277447], [0.27561307, -0.9005162, -1.0863110]]
    np.testing.assert_allclose(sample_z([1, 10_000_000], 3), expected, rtol=1e-6)
    assert split_seeds({"train": 1}, 1)["train"] == [10_000_000]


@pytest.mark.parametrize("size", [-1, 1_000_001])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(InputError, match=f"{size} samples for pool"):
        split_seeds(SIZES | {"pool": size}, 1)
