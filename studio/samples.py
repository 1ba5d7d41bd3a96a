"""Samples by what makes them: a row, a seed or a photograph, and edits' vectors added to it."""

from dataclasses import dataclass, replace

BASES = ("pool", "seed", "photo")
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Move:
    """The vector of a finished edit, so many times."""

    folder: str  # of the edit's files
    strength: float = 1.0


@dataclass(frozen=True)
class Sample:
    """What the lanes make ws from."""

    base: str  # one of BASES
    number: int  # row, seed, or number of the photograph
    moves: tuple[Move, ...] = ()

    def moved(self, move: Move) -> "Sample":
        """With one more vector."""
        return replace(self, moves=(*self.moves, move))
