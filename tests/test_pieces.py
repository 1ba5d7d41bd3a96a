"""Finished pieces: made once, kept through kills, damage noticed, unused ones removed."""

import os
import time
from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.runtime import pieces, workers
from pipeline.runtime.errors import InputError
from pipeline.runtime.pieces import Kind, list_pieces, remove_unused

KIND = Kind("squares", __name__)
MADE: list[int] = []


@dataclass(frozen=True)
class Square:
    number: int
    version: int = 1
    fails: bool = False

    @property
    def facts(self):
        return [self.number, self.version]

    def work(self):
        if self.fails:
            raise RuntimeError
        MADE.append(self.number)
        return {"square": np.array(self.number**2)}


def run(numbers, version=1, fails=()):
    MADE.clear()
    tasks = [Square(number, version, number in fails) for number in numbers]
    return [int(arrays["square"]) for arrays in pieces.run(KIND, tasks, "cpu", 1)]


def test_a_piece_is_made_once_and_read_in_the_order_asked_for():
    assert run([2, 3, 2]) == [4, 9, 4] and MADE == [2, 3]
    assert run([3, 4, 2]) == [9, 16, 4] and MADE == [4]


def test_other_facts_make_other_pieces():
    run([2])
    assert run([2], version=2) == [4] and MADE == [2]


def test_other_code_makes_other_pieces(monkeypatch):
    before = KIND.path([2])
    monkeypatch.setattr(pieces, "code_digest", lambda module: "edited")
    assert KIND.path([2]) != before


def test_a_damaged_piece_is_made_again():
    run([2])
    path = KIND.path([2, 1])
    path.write_bytes(path.read_bytes()[:-20])
    assert KIND.read([2, 1]) is None
    assert run([2]) == [4] and MADE == [2]


def test_what_was_finished_before_a_failure_is_kept():
    with pytest.raises(RuntimeError):
        run([1, 2, 3, 4], fails=[3])
    assert run([1, 2, 3, 4]) == [1, 4, 9, 16] and MADE == [3, 4]


def test_unused_pieces_are_removed(store_root):
    run([1, 2])
    old = KIND.path([1, 1])
    os.utime(old, (time.time() - 3 * 86_400,) * 2)
    assert remove_unused(store_root, days=2, dry_run=True) == [old] and old.exists()
    remove_unused(store_root, days=2)
    assert dict(list_pieces(store_root)) == {"squares": [KIND.path([2, 1])]}


def refuse(_):
    raise InputError("one", "another", "mend it")


def test_bad_input_that_a_worker_meets_is_said_as_it_is():
    with pytest.raises(InputError, match="got one; wanted another; mend it"):
        list(workers.run(refuse, [0, 1], "refusing", 2))
