"""Taps and styles: named values inside a generator, recorded or edited by hooks inside a `with`.

The idea of tracing and editing by one mechanism follows baukit's nethook (Bau et al.).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Tap:
    """One recorded feature map: the output [N, channels, resolution, resolution] of a submodule."""

    name: str
    module: str
    channels: int
    resolution: int


@dataclass(frozen=True)
class Style:
    """One style: the output of a submodule, a scale [N, channels, 1, 1] of a feature map.

    A family whose module gives scale and bias at once has [N, 2 channels, 1, 1], the scale first.
    """

    name: str
    module: str
    channels: int
    resolution: int  # of the map that it scales, px
    tap: Tap | None  # what `scaled_map` makes that map of; None: of the learned constant


Place = TypeVar("Place", bound=Tap | Style)


def select(taps: Sequence[Tap], max_resolution: int | None = None) -> tuple[Tap, ...]:
    """The taps up to `max_resolution` px (None: all); InputError if none is left."""
    kept = tuple(t for t in taps if max_resolution is None or t.resolution <= max_resolution)
    if not kept:
        raise InputError(
            f"max_tap_resolution {max_resolution}",
            f"at least {min(t.resolution for t in taps)}",
            "raise it to keep at least one tap",
        )
    return kept


def find(taps: Sequence[Tap], name: str) -> Tap:
    """The tap called `name`; InputError lists the names."""
    for tap in taps:
        if tap.name == name:
            return tap
    raise InputError(f"tap {name!r}", f"one of {', '.join(t.name for t in taps)}", "name a tap")


@contextmanager
def record(generator: Any, taps: Sequence[Tap | Style]) -> Iterator[dict[str, Any]]:
    """Yield a dict that every forward pass inside the `with` fills: {tap name: [N, C, H, W]}."""
    features: dict[str, Any] = {}
    with watch(generator, taps, features.__setitem__):
        yield features


@contextmanager
def watch(
    generator: Any, taps: Sequence[Tap | Style], look: Callable[[str, Any], None]
) -> Iterator[None]:
    """Call look(tap name, feature map) inside the `with`, as soon as a pass has made the map."""

    def hook(name: str) -> Callable:
        return lambda module, inputs, output: look(name, output)

    with _hooks(generator, {tap: hook(tap.name) for tap in taps}):
        yield


@contextmanager
def edit(generator: Any, edits: Mapping[Place, Callable[[Any], Any]]) -> Iterator[None]:
    """Replace each tap's feature map, or style's scale, by edits[tap](value) inside the `with`."""

    def change(function: Callable[[Any], Any]) -> Callable:
        return lambda module, inputs, output: function(output)

    with _hooks(generator, {tap: change(function) for tap, function in edits.items()}):
        yield


@contextmanager
def _hooks(generator: Any, hooks: Mapping[Place, Callable]) -> Iterator[None]:
    handles = []
    try:
        for tap, hook in hooks.items():
            handles.append(generator.get_submodule(tap.module).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
