"""Whether params.yaml fits dvc.yaml: each value has a reader, each reader its value.

DVC says neither: of a missing key it names its own template, of a spare one nothing.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:  # the one in C, which not every build of PyYAML has
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DVC_YAML = "dvc.yaml"
REFERENCE = re.compile(r"\$\{([^}]+)\}")
Keys = tuple[object, ...]  # mostly strings, from the top of params.yaml to a value
Options = Callable[[str], Mapping[str, bool]]  # of a stage: option -> whether it has no default


def check_parameters(params: Mapping, pipeline: Mapping, options: Options) -> None:
    """Check the parsed params.yaml against the parsed dvc.yaml and the stages' options.

    Raises InputError for a key that a stage reads and that is not there, for an option that a
    stage lacks, does not know or is given from two places, and for a value that no stage reads.
    """
    read: set[Keys] = set()
    for name, stage in pipeline.get("stages", {}).items():
        for cell in _cells(name, stage, params):
            for text in _strings(cell.definition):
                read |= {cell.find(reference)[0] for reference in REFERENCE.findall(text)}
            commands = cell.definition.get("cmd", ())
            for command in [commands] if isinstance(commands, str) else commands:
                _check_command(cell, command, options)
        for reference in REFERENCE.findall(str(stage.get("foreach", stage.get("matrix")))):
            keys, value = _Cell(name, {}, params, {}).find(reference)
            if not isinstance(value, Mapping):  # of a mapping, foreach reads the keys alone
                read.add(keys)
    _check_all_read((), params, read - {()})


class _Cell:
    """A stage of dvc.yaml for one item of its foreach or matrix."""

    def __init__(self, name: str, definition: Mapping, params: Mapping, names: Mapping[str, Keys]):
        self.name, self.definition, self.params = name, definition, params
        self.names = names  # what `item` and `key` stand for, if a value of params: its keys

    def find(self, reference: str) -> tuple[Keys, object]:
        """Keys and value of `a.b.c`; of what foreach or matrix name themselves, (), the name."""
        first, *rest = reference.strip().split(".")
        if first in ("item", "key") and first not in self.names:
            return (), reference
        keys: Keys = ()
        value: object = self.params
        for key in (*self.names.get(first, (first,)), *rest):
            if not isinstance(value, Mapping) or key not in value:
                raise InputError(
                    f"no `{key}` in {_place(keys)}",
                    f"what stage {self.name} of dvc.yaml reads",
                    f"add `{key}:` (a section may be {{}}), as docs/studies.md shows",
                )
            keys, value = (*keys, key), value[key]
        return keys, value


def _cells(name: str, stage: Mapping, params: Mapping) -> Iterator[_Cell]:
    """The cells of a stage; the items of a list and of a matrix are only names."""
    items = stage.get("foreach")
    definition = {key: stage[key] for key in stage if key != "matrix"}
    alone = _Cell(name, stage.get("do", definition), params, {})
    found = REFERENCE.fullmatch(items) if isinstance(items, str) else None
    keys, section = alone.find(found[1]) if found else ((), None)
    if not isinstance(section, Mapping):
        yield alone
        return
    for key in section:
        yield _Cell(name, alone.definition, params, {"item": (*keys, key)})


def _check_command(cell: _Cell, command: str, options: Options) -> None:
    """Each option of the command line is the stage's, has one home, and none is missing."""
    stage = re.search(r"-m stages\.(\w+)", command)
    if not stage:
        return
    known, homes = options(stage[1]), _homes(cell, command)
    home_of: dict[str, str] = {}
    for home, names in homes.items():
        for option in names:
            if option not in known:
                raise InputError(
                    f"`{option}` in {home}",
                    f"an option of stages.{stage[1]}",
                    _rename(option, known),
                )
            if home_of.setdefault(option, home) != home:
                raise InputError(
                    f"`{option}` for stage {cell.name} in {home_of[option]} and in {home}",
                    "one home for each option",
                    "remove it from one of them",
                )
    for option, required in known.items():
        if required and option not in home_of:
            sections = [home for home in homes if home != DVC_YAML]
            raise InputError(
                f"no `{option}` in {' or '.join(sections) or DVC_YAML}",
                f"a value for stage {cell.name}, which has no default for it",
                "add it",
            )


def _homes(cell: _Cell, command: str) -> dict[str, list[str]]:
    """The options that each section unpacked into a command gives, and those written there."""
    homes: dict[str, list[str]] = {DVC_YAML: []}
    for word in command.split():
        reference = REFERENCE.fullmatch(word)
        if word.startswith("--"):
            homes[DVC_YAML].append(word[2:].replace("-", "_"))
        elif reference:
            keys, value = cell.find(reference[1])
            if value is None:
                raise InputError(
                    f"nothing in {_place(keys)}",
                    "options, or {} for none",
                    f"write `{keys[-1]}: {{}}`",
                )
            if isinstance(value, Mapping):
                homes[_place(keys)] = [str(option) for option in value]
    return homes


def _check_all_read(above: Keys, section: Mapping, read: set[Keys]) -> None:
    """Raise InputError for the first value below `above` that is not among `read`."""
    for key, value in section.items():
        keys = (*above, key)
        if keys in read:
            continue
        if not isinstance(value, Mapping) or all(other[: len(keys)] != keys for other in read):
            beside = {k[len(above)] for k in read if k[: len(above)] == above}
            raise InputError(
                f"`{key}` in {_place(above)}, which no stage of dvc.yaml reads",
                "values that a stage reads",
                _rename(str(key), map(str, beside)),
            )
        _check_all_read(keys, value, read)


def _strings(value: object) -> Iterator[str]:
    """All strings in a part of dvc.yaml, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _strings(key)
            yield from _strings(below)
    elif isinstance(value, list):
        for below in value:
            yield from _strings(below)


def _place(keys: Keys) -> str:
    return f"{'.'.join(map(str, keys))} of params.yaml" if keys else "params.yaml"


def _rename(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"rename it to `{close[0]}`" if close else "remove it"


def read_yaml(path: Path) -> dict:
    """What a YAML file holds, {} if there is none. No YAML, or a key twice: InputError."""
    try:
        return (yaml.load(path.read_text(), _OneOfEach) if path.exists() else None) or {}
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}, which is not YAML: {said}", "YAML", "correct it") from error


class _OneOfEach(_Loader):
    """A loader that refuses a key which occurs twice, as DVC does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        twice = next((key for key, _ in node.value if names.count(key.value) > 1), None)
        if twice:
            where = f"line {node.value[names.index(twice.value)][0].start_mark.line + 1}"
            raise InputError(
                f"`{twice.value}` twice in a section, first in {where}",
                "each key once",
                "rename or remove one",
            )
        return super().construct_mapping(node, deep)
