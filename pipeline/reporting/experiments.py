"""Experiments as a narrow table: a column per experiment, a row per thing that differs.

`dvc exp show` gives each metric a column with the name of its file, some 700 characters in all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

LONGEST = 24  # characters of a value


def changed_table(shown: Sequence[Mapping], width: int) -> str:
    """What differs between the revisions of `dvc exp show --json`, in lines of at most `width`.

    A row per changed parameter and headline metric. Experiments that do not fit beside each other
    follow in further blocks.
    """
    columns = dict(_columns(shown))
    names = dict.fromkeys(name for values in columns.values() for name in values)
    rows = {name: [values.get(name, "–") for values in columns.values()] for name in names}
    rows = {name: row for name, row in rows.items() if len(set(row)) > 1}
    if not rows:
        return f"{len(columns)} revisions, which do not differ in a parameter or headline metric"
    first = max(map(len, rows))
    blocks: list[list[tuple[int, int]]] = []  # of (column, characters)
    block: list[tuple[int, int]] = []
    used = first
    for i, title in enumerate(columns):
        size = 2 + max(len(title), *(len(row[i]) for row in rows.values()))
        if block and used + size > width:
            blocks.append(block)
            block, used = [], first
        block.append((i, size))
        used += size
    heads = list(columns)
    return "\n\n".join(
        "\n".join(
            name.ljust(first) + "".join(cells[i].rjust(size) for i, size in block)
            for name, cells in {"": heads, **rows}.items()
        )
        for block in [*blocks, block]
    )


def _columns(shown: Sequence[Mapping]) -> Iterator[tuple[str, dict[str, str]]]:
    """(title, {name: value}) of the workspace, each commit, and the experiments of each."""
    for commit in shown:
        title = commit["name"] or commit["rev"][:10]
        yield title, dict(_values(commit["data"]))
        for experiment in commit["experiments"] or ():
            (revision, *_) = experiment["revs"]
            state = (experiment["executor"] or {}).get("state")
            values = {"state": state} if state and state != "success" else {}
            title = experiment["name"] or revision["rev"][:7]
            yield title, values | dict(_values(revision["data"]))


def _values(data: Mapping | None) -> Iterator[tuple[str, str]]:
    """Parameters by their dotted names, then metrics by the study that their file is named by."""
    for file in ((data or {}).get("params") or {}).values():
        yield from _flat(file.get("data") or {}, ())
    for path, file in ((data or {}).get("metrics") or {}).items():
        yield from _flat(file.get("data") or {}, (Path(path).stem,), " ")


def _flat(value: object, names: Iterable[str], joint: str = ".") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, (*names, str(key)), joint)
    else:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        yield joint.join(names), text
