"""Which state dict of a training file is the generator: found by its tensors' names, at any depth.

Training scripts wrap networks under many keys and prefixes (`g_ema`, `state_dict` with `decoder.`,
`module.`), so a network is looked for by the marks of its layout behind any prefix.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.generators.importers.layouts import LAYOUTS, Layout
from pipeline.runtime.errors import InputError

MAX_DEPTH = 4  # of state dicts in dicts
# An average of the weights comes before the weights; then these keys, in this order.
AVERAGE = re.compile(r"(^|[._])(ema|smooth|avg|average|averaged|shadow)\d*([._]|$)|^Gs$", re.I)
USUAL = ("generator", "g", "netG", "netG_state_dict", "GAN", "decoder", "model", "state_dict")


@dataclass(frozen=True)
class Part:
    """A network in a file: the keys that lead to it, the prefix of its names, its tensors."""

    path: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """Keys and prefix, as a sentence names them; "" for a whole file."""
        return " / ".join((*self.path, *([self.prefix.rstrip(".")] if self.prefix else ())))

    def lies_in(self, other: "Part") -> bool:
        """Whether it is a part of another network: the same dict, behind a longer prefix."""
        longer = self.prefix != other.prefix and self.prefix.startswith(other.prefix)
        return longer and self.path == other.path

    @property
    def averaged(self) -> bool:
        """Whether a key or the prefix says that it is an average of weights."""
        return any(AVERAGE.search(step) for step in (*self.path, self.prefix) if step)

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller is better."""
        steps = [*self.path, *self.prefix.split(".")]
        known = [USUAL.index(step) for step in steps if step in USUAL]
        return not self.averaged, min(known, default=len(USUAL))


def choose_part(value: dict) -> Part:
    """The generator in a file's value; without a known one, its largest dict of tensors.

    InputError if two networks are equally likely, or if there is no tensor.
    """
    dicts = list(_dicts(value, ()))
    every = [part for one in dicts for part in _networks(*one)]
    found = sorted(
        (part for part in every if not any(part.lies_in(other) for other in every)),
        key=lambda part: part.rank,
    )
    if not found:
        path, tensors = max(dicts, key=lambda one: len(one[1]), default=((), {}))
        if not tensors:
            keys = ", ".join(map(str, list(value)[:8])) or "nothing"
            raise InputError(
                f"a file without a tensor under a name (it has: {keys})",
                "a generator's state dict of unknown names or known ones",
                "save the generator's state dict alone",
            )
        return Part(path, "", _unprefixed(tensors))
    best = found[0]
    for other in found[1:]:
        if other.rank == best.rank and not _equal(best.tensors, other.tensors):
            raise InputError(
                f"two generators, under {best.name!r} and {other.name!r}",
                "one",
                "save the state dict of the one that is meant alone",
            )
    average = _average(value, best)
    return Part(best.path, best.prefix, best.tensors | average)


def _dicts(value: dict, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict]]:
    """All dicts in a value that hold tensors under names, with the keys that lead there."""
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield path, tensors
    if len(path) < MAX_DEPTH:
        for key, child in value.items():
            if isinstance(child, dict):
                yield from _dicts(child, (*path, str(key)))


def _networks(path: tuple[str, ...], tensors: dict[str, Tensor]) -> Iterator[Part]:
    """The networks of known layouts in one dict, behind any prefix."""
    for layout in LAYOUTS:
        for prefix in _prefixes(layout, tensors):
            inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            yield Part(path, prefix, inside)


def _prefixes(layout: Layout, tensors: dict[str, Tensor]) -> list[str]:
    ends = [name[: -len(layout.marks[0])] for name in tensors if name.endswith(layout.marks[0])]
    return [
        prefix
        for prefix in ends
        if (not prefix or prefix.endswith("."))
        and all(prefix + mark in tensors for mark in layout.marks)
    ]


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without a first step that all names share, as `module.`, in names of no known layout."""
    first = {name.partition(".")[0] for name in tensors if "." in name}
    if (
        len(first) == 1
        and all("." in name for name in tensors)
        and first <= {"module", "_orig_mod"}
    ):
        return _unprefixed({name.partition(".")[2]: v for name, v in tensors.items()})
    return tensors


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = ((one[name], other[name]) for name in one)
    return all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def _average(value: dict, part: Part) -> dict[str, Tensor]:
    """{latent_avg} as one row [w_dim], from the network or a dict around it.

    Files for W+ repeat it for each layer. Rows that differ are no mean of w: it is measured then.
    """
    around: Any = value
    found = [part.tensors.get("latent_avg"), around.get("latent_avg")]
    for key in part.path:
        around = next((v for k, v in around.items() if str(k) == key), {})
        found.append(around.get("latent_avg"))
    given = next((one for one in found if isinstance(one, Tensor)), None)
    if given is None or given.ndim < 2:
        return {} if given is None else {"latent_avg": given}
    rows = given.reshape(-1, given.shape[-1])
    if len(rows) and bool((rows == rows[:1]).all()):
        return {"latent_avg": rows[0]}
    part.tensors.pop("latent_avg", None)
    return {}
