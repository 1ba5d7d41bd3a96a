"""Label spaces: the 19 classes of CelebAMask-HQ, 15 merged ones (Xu & Zheng, CVPR 2021), and merges
of any network's classes that a YAML file describes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.runtime.errors import InputError, choose

DROPPED = -1
MAX_CLASSES = 150  # masks are uint8, and 255 is a pixel without a label
NATIVE = "native"  # the network's own classes
FIELDS = ("aliases", "classes", "none_of_these", "rest")


@dataclass(frozen=True)
class LabelSpace:
    """Class names, and where each of the network's classes goes: merge[network class] = class.

    A network class that goes to DROPPED takes no part in the argmax. With `zero_logit`, class 0 is
    "none of these": a logit of zero beside the network's (the reference's scenes), which `merge`
    does not list.
    """

    name: str
    classes: tuple[str, ...]
    merge: tuple[int, ...]
    zero_logit: bool = False

    def merge_ids(self, masks: np.ndarray) -> np.ndarray:
        """Map network ids [...] uint8 to ids of this space, which must drop none."""
        return np.asarray(self.merge, np.uint8)[masks]

    def keep(self, names: Sequence[str]) -> "LabelSpace":
        """The space of class 0 and `names`: category selection (appendix E of the paper)."""
        if unknown := [name for name in names if name not in self.classes]:
            raise InputError(
                f"class {unknown[0]!r} to keep",
                f"classes of {self.name}: {', '.join(self.classes)}",
                "select the categories again",
            )
        kept = (self.classes[0], *(c for c in self.classes[1:] if c in names))
        ids = {c: i for i, c in enumerate(kept)}
        merge = tuple(ids.get(self.classes[i], DROPPED) for i in self.merge)
        return LabelSpace(f"{self.name}, selected", kept, merge, self.zero_logit)


# fmt: off
CELEBAMASK19 = (
    "bg", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)
FACE15 = (
    "bg", "skin", "nose", "eye_g", "eye", "brow", "ear", "mouth", "u_lip", "l_lip",
    "hair", "hat", "ear_r", "neck", "cloth",
)
# fmt: on

# What a horizontal flip does to the 19 ids: left and right eye, brow and ear change places.
FLIP19 = (0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18)

LABEL_SPACES = {
    "celebamask19": LabelSpace("celebamask19", CELEBAMASK19, tuple(range(19))),
    "celebamask15": LabelSpace(
        "celebamask15",
        FACE15,
        (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 13, 14),
    ),
}


def label_space(name: str) -> LabelSpace:
    """Look a label space of the 19 face classes up by name."""
    return LABEL_SPACES[choose("label space", name, LABEL_SPACES)]


def read_space(labels: str | Path, network: Sequence[str]) -> LabelSpace:
    """The label space `labels` of a network with the classes `network`, in the order of its logits.

    `labels` is a name of LABEL_SPACES, `native` (the network's own classes), or a YAML file:

        aliases: {background: bg}      # what this network calls a class: its name below; optional
        none_of_these: nothing         # class 0 is a logit of zero, under this name; optional
        classes:                       # name: the network's classes (names or ids) that go there
          bg: [bg]
          eye: [l_eye, r_eye]
        rest: bg                       # where the other classes go; without it they are dropped
    """
    if labels == NATIVE:
        return LabelSpace(
            NATIVE, _checked(_distinct(network), "native"), tuple(range(len(network)))
        )
    if Path(labels).suffix in {".yaml", ".yml", ".json"}:
        return _merge(Path(labels), _read(Path(labels)), network)
    if str(labels) not in LABEL_SPACES:
        known = ", ".join([*LABEL_SPACES, NATIVE])
        raise InputError(
            f"label space {str(labels)!r}", f"one of {known}, or a YAML file", "name one of these"
        )
    known19 = {i: _other_names(name) for i, name in enumerate(CELEBAMASK19)}
    fits = len(network) == 19 and all(name in known19[i] for i, name in enumerate(network))
    if not fits and tuple(network) == FACE15 and labels == "celebamask15":  # merged already
        return LabelSpace("celebamask15", FACE15, tuple(range(15)))
    if not fits:
        raise InputError(
            f"label space {labels} for a network with classes {_shortly(network)}",
            f"the classes of CelebAMask-HQ in their order: {', '.join(CELEBAMASK19)}",
            f"name `{NATIVE}`, or a YAML file that merges the network's classes",
        )
    return label_space(str(labels))


def identity(labels: str | Path) -> str:
    """What tells label spaces apart: the content of a space's file, or a built-in one's name."""
    return Path(labels).read_text() if Path(labels).is_file() else str(labels)


def _other_names(name: str) -> set[str]:
    return {name, "background"} if name == "bg" else {name}


def _read(path: Path) -> Mapping:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(
            f"no label space at {path}", "a YAML file with `classes`", "name a file of labels/"
        ) from error
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}, which is not YAML ({reason})", "YAML", "mend it") from error
    wrong = not isinstance(found, dict) or not isinstance(found.get("classes"), dict)
    if wrong or not found["classes"]:
        raise InputError(
            f"{path} without a mapping `classes`", "name: [network classes]", "see docs/teachers.md"
        )
    if unknown := [str(key) for key in found if key not in FIELDS]:
        raise InputError(f"{path} with {unknown[0]!r}", f"only {', '.join(FIELDS)}", "mend it")
    return found


def _merge(path: Path, found: Mapping, network: Sequence[str]) -> LabelSpace:
    """A label space from a file's fields; InputError for a class that the network does not have."""
    aliases = {str(k): str(v) for k, v in (found.get("aliases") or {}).items()}
    names = [aliases.get(name, name) for name in _distinct(network)]
    none = found.get("none_of_these")
    classes = ([str(none)] if none else []) + [str(name) for name in found["classes"]]
    rest = found.get("rest")
    if rest is not None and rest not in classes:
        raise InputError(
            f"{path} whose rest goes to {rest!r}", f"one of {', '.join(classes)}", "mend `rest`"
        )
    merge = [DROPPED if rest is None else classes.index(rest)] * len(names)
    taken: dict[int, str] = {}
    for name, members in found["classes"].items():
        for member in members if isinstance(members, list) else [members]:
            i = _find(path, str(name), member, names)
            if i in taken:
                raise InputError(
                    f"{path} that sends {names[i]!r} to {taken[i]} and to {name}",
                    "each of the network's classes at most once",
                    "mend `classes`",
                )
            taken[i], merge[i] = str(name), classes.index(str(name))
    return LabelSpace(path.stem, _checked(classes, path), tuple(merge), none is not None)


def _find(path: Path, name: str, member: object, network: Sequence[str]) -> int:
    """The network's class `member`: an id, or a name."""
    if isinstance(member, int) and 0 <= member < len(network):
        return member
    if isinstance(member, str) and member in network:
        return list(network).index(member)
    raise InputError(
        f"{path} whose class {name!r} takes {member!r}",
        f"ids 0-{len(network) - 1} or classes of the network: {_shortly(network)}",
        "mend `classes`, or add the network's word for it to `aliases`",
    )


def _checked(classes: Sequence[str], where: object) -> tuple[str, ...]:
    if not 2 <= len(classes) <= MAX_CLASSES or len(set(classes)) < len(classes):
        raise InputError(
            f"{len(classes)} classes of {where}, {len(set(classes))} of them different",
            f"2 to {MAX_CLASSES} classes of different names",
            "merge some in a YAML file",
        )
    return tuple(classes)


def _distinct(network: Sequence[str]) -> list[str]:
    """Names without blanks around them; a repeated one carries its id."""
    names = [name.strip() for name in network]
    return [f"{n} ({i})" if n in names[:i] else n for i, n in enumerate(names)]


def _shortly(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
