"""Dataclasses of options become command lines, and come back as instances."""

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.runtime.options import Machine, Synthesis, comments
from stages import flatten, options, run


@dataclass(frozen=True)
class Inner:
    """Options inside of others."""

    l2: tuple[float, ...]  # strengths; repeat for more
    power: float = 0.5  # of the root mean square # not of the mean


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Options of a stage."""

    # A comment of two lines,
    # above its field.
    steps: int = 50
    kinds: tuple[str, ...] = ("a", "b")  # of edits
    inner: Inner
    flag: bool = False  # whether


CALLS = []


@dataclass(frozen=True)
class Read:
    """Paths of a stage."""

    images: Path
    masks: Path


def stage(
    read: Read,
    out: Path,  # folder to write
    *,
    outer: Outer,
    machine: Synthesis,
    study: str = "",  # name of the study
) -> None:
    """Keep what it was called with."""
    CALLS.append((read, out, outer, machine, study))


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["stage", *words])
    with pytest.raises(SystemExit) as end:
        run(stage)
    assert not end.value.code
    return CALLS.pop()


def test_comments_of_fields_and_parameters():
    assert comments(Outer)["steps"] == "A comment of two lines, above its field."
    assert comments(Inner)["power"] == "of the root mean square # not of the mean"
    assert comments(stage)["study"] == "name of the study"
    assert set(comments(Machine)) == {"device", "compute", "workers"}, "bases are read"


def test_fields_are_options_and_those_without_default_are_required():
    required = {"l2"}
    names = ("steps", "kinds", "l2", "power", "flag", "device", "compute", "study")
    assert options(stage) == {name: name in required for name in names}


def test_a_command_line_becomes_instances(monkeypatch):
    words = ("i", "m", "x", "--l2", "0.1", "--l2=0.01", "--steps=3", "--study", "toy")
    assert call(monkeypatch, *words) == (
        Read(Path("i"), Path("m")),
        Path("x"),
        Outer(steps=3, inner=Inner((0.1, 0.01))),
        Synthesis(),
        "toy",
    )


def test_lists_replace_their_defaults_and_append_to_themselves(monkeypatch):
    words = ("--l2", "1", "--kinds", "c", "--no-flag", "--device", "cpu")
    *_, outer, machine, study = call(monkeypatch, "i", "m", "x", *words)
    assert outer == Outer(kinds=("c",), inner=Inner((1.0,)))
    assert machine == Synthesis(device="cpu") and study == ""


def test_a_direct_call_takes_flat_values():
    flatten(stage)("i", "m", out="x", l2=[1.0], power=1.0, kinds=["c"])
    outer = Outer(kinds=("c",), inner=Inner((1.0,), 1.0))
    assert CALLS.pop() == (Read("i", "m"), "x", outer, Synthesis(), "")
    with pytest.raises(TypeError, match="unknown"):
        flatten(stage)("i", "m", "x", l2=[1.0], unknown=1)
    with pytest.raises(TypeError, match="l2"):
        flatten(stage)("i", "m", "x")


def test_fields_of_positional_dataclasses_are_arguments_in_their_place():
    parameters = inspect.signature(flatten(stage)).parameters
    places = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
    assert places == ["images", "masks", "out"]


def test_two_fields_of_one_name_are_refused():
    def twice(*, one: Inner, other: Inner) -> None:
        """Two of the same."""

    with pytest.raises(AssertionError, match="two options l2 of twice"):
        flatten(twice)
