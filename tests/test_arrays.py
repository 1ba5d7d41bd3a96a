"""Groups of small arrays: what is written is read, a few rows at a time."""

import numpy as np
import pytest
import zarr

from pipeline.data import arrays
from pipeline.data.arrays import Group, write_group
from pipeline.runtime.errors import InputError


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
    files = [(tmp_path / name).read_bytes() for name in ("lazy", "whole")]
    assert files[0] == files[1]
    assert {path.name for path in tmp_path.iterdir()} == {"lazy", "whole"}, "no parts are left"


def test_the_same_arrays_give_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    values = {"train/x": np.arange(12).reshape(4, 3), "test/x": np.arange(3).reshape(1, 3)}
    write_group(tmp_path / "now", values, {})
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_group(tmp_path / "then", values, {})
    assert (tmp_path / "now").read_bytes() == (tmp_path / "then").read_bytes()


def test_a_group_is_a_file_that_zarr_opens(tmp_path):
    write_group(tmp_path / "x.zarr.zip", {"train/x": np.arange(3)}, {"seed": 1})
    with zarr.storage.ZipStore(tmp_path / "x.zarr.zip") as store:
        root = zarr.open_group(store, mode="r")
        assert dict(root.attrs) == {"seed": 1}
        np.testing.assert_array_equal(root["train.x"][:], [0, 1, 2])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no zarr group at .*x.zarr.zip"), (b"no zip", "is damaged")]
)
def test_what_is_no_group_is_told(content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.zarr.zip").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Group(tmp_path / "x.zarr.zip")


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
    size = (tmp_path / "group").stat().st_size
    assert bool(size < np.prod(shape) / 2) is compressed


def test_flipped_bits_are_found(tmp_path):
    masks = np.random.default_rng(0).integers(0, 4, (9, 8, 8)).astype(np.uint8)
    images = np.arange(9 * 12, dtype=np.uint8).reshape(9, 3, 2, 2)
    write_group(tmp_path / "x", {"train/masks": masks, "train/images": images}, {"seed": 1})
    whole, found = (tmp_path / "x").read_bytes(), 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "y").write_bytes(damaged)
        try:
            group = Group(tmp_path / "y")
            read = group.read("train", "masks"), group.read("train", "images")
        except InputError as error:
            assert str(tmp_path / "y") in str(error)
            found += 1
        else:  # a time of the zip's, or a comment
            np.testing.assert_array_equal(read[0], masks)
            np.testing.assert_array_equal(read[1], images)
    assert found > len(whole) / 9
