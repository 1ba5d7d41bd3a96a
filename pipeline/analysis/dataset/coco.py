"""Masks as run lengths, in the form that COCO's own tools read."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8


def annotations(
    mask: UInt8[np.ndarray, "height width"],
) -> Iterator[dict]:
    """A region of each class but the first that a mask shows: all of its pixels, as one."""
    flat = mask.T.ravel()  # COCO counts down the columns
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths, classes = np.diff(starts, append=len(flat)), flat[starts]
    for label in np.unique(classes):
        if label == 0:
            continue
        own = classes == label
        counts = run_lengths(starts[own], lengths[own], len(flat))
        rows, columns = (mask == label).any(1).nonzero()[0], (mask == label).any(0).nonzero()[0]
        top, left = int(rows[0]), int(columns[0])
        yield {
            "category_id": int(label),
            "area": int(lengths[own].sum()),
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "iscrowd": 0,
            "segmentation": {"size": list(mask.shape), "counts": compressed(counts)},
        }


def run_lengths(
    starts: Int[np.ndarray, " run"], lengths: Int[np.ndarray, " run"], total: int
) -> list[int]:
    """Lengths of the runs outside and inside, in turn, beginning outside."""
    ends = starts + lengths
    outside = np.diff(np.concatenate([[0], starts])) - np.concatenate([[0], lengths[:-1]])
    counts = np.stack([outside, lengths], 1).ravel().tolist()
    return counts if ends[-1] == total else [*counts, int(total - ends[-1])]


def compressed(counts: Sequence[int]) -> str:
    """Run lengths as text: differences to the run before the last, 5 bits a letter."""
    letters = []
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 31
            x >>= 5
            more = x != (-1 if bits & 16 else 0)
            letters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(letters)
