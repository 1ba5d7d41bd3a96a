"""Groups of small arrays: what is written is read, a few rows at a time."""

import numpy as np
import pytest

from pipeline import arrays
from pipeline.arrays import Group, write_group


class Pieces:
    """Rows that somebody else holds; remembers how many were asked for at once."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.asked = values, values.shape, values.dtype, []

    def __getitem__(self, rows):
        self.asked.append(rows.stop - rows.start)
        return self.values[rows]


@pytest.mark.parametrize("num", [0, 1, 4, 5, 11])
def test_arrays_are_written_and_read_in_pieces(num, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "ROWS_PER_CHUNK", 4)
    images = np.arange(num * 12, dtype=np.uint8).reshape(num, 3, 2, 2)
    pieces = Pieces(images)
    write_group(tmp_path / "lazy", {"train/images": pieces}, {"seed": 1})
    assert max(pieces.asked, default=0) <= 4, "never the whole array"
    group = Group(tmp_path / "lazy")
    assert group.attributes == {"seed": 1} and group.splits == {"train": num}
    np.testing.assert_array_equal(group.read("train", "images"), images)
    write_group(tmp_path / "whole", {"train/images": images}, {"seed": 1})
    files = [
        [p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()]
        for name in ("lazy", "whole")
    ]
    assert files[0] == files[1]


def test_large_rows_come_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BYTES_PER_CHUNK", 25)
    for cells, most in ((3, 8), (12, 2), (30, 1)):
        pieces = Pieces(np.arange(10 * cells, dtype=np.uint8).reshape(10, cells))
        write_group(tmp_path / "group", {"train/x": pieces}, {})
        assert max(pieces.asked) == most
        np.testing.assert_array_equal(Group(tmp_path / "group").read("train", "x"), pieces.values)


@pytest.mark.parametrize(
    "shape, compressed",
    [
        pytest.param((70, 8, 8), True, id="masks"),
        pytest.param((70, 3, 8, 8), False, id="images"),
    ],
)
def test_masks_alone_are_compressed(shape, compressed, tmp_path):
    write_group(tmp_path / "group", {"train/x": np.ones(shape, np.uint8)}, {})
    chunks = (tmp_path / "group" / "train.x").glob("c.*")  # flat: no folder a split or a chunk
    size = sum(path.stat().st_size for path in chunks)
    assert bool(size < np.prod(shape) / 2) is compressed
