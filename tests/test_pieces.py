"""Finished pieces: made once, kept through kills, damage noticed, unused ones removed."""

import os
import time
from dataclasses import dataclass

import numpy as np

from pipeline.runtime.pieces import Kind, list_pieces, remove_unused

MADE = []


@dataclass(frozen=True)
class Square:
    number: int


def squares(tasks):
    MADE.extend(task.number for task in tasks)
    return [{"square": np.array(task.number**2)} for task in tasks]


def kind(version=1):
    return Kind("squares", squares, lambda task: [task.number, version])


def run(numbers, **options):
    MADE.clear()
    found = kind(**options).run([Square(n) for n in numbers], device="cpu", num_workers=1)
    return [int(arrays["square"]) for arrays in found]


def test_a_piece_is_made_once_and_read_in_the_order_asked_for():
    assert run([2, 3, 2]) == [4, 9, 4] and MADE == [2, 3]
    assert run([3, 4, 2]) == [9, 16, 4] and MADE == [4]


def test_other_facts_make_other_pieces():
    run([2])
    assert run([2], version=2) == [4] and MADE == [2]


def test_a_damaged_piece_is_made_again():
    run([2])
    path = kind().path(Square(2))
    path.write_bytes(path.read_bytes()[:-20])
    assert run([2]) == [4] and MADE == [2]


def test_missing_tasks_are_made_in_batches():
    MADE.clear()
    run([1])
    batches = []

    def pairs(tasks):
        batches.extend([tasks[:2], tasks[2:]])
        return batches

    kind().run([Square(n) for n in (1, 2, 3, 4)], device="cpu", num_workers=1, batches=pairs)
    assert [[t.number for t in batch] for batch in batches] == [[2, 3], [4]]


def test_unused_pieces_are_removed(store_root):
    run([1, 2])
    old = kind().path(Square(1))
    os.utime(old, (time.time() - 3 * 86_400,) * 2)
    assert remove_unused(store_root, days=2, dry_run=True) == [old] and old.exists()
    remove_unused(store_root, days=2)
    assert dict(list_pieces(store_root)) == {"squares": [kind().path(Square(2))]}
