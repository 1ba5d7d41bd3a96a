"""Where a session's files lie, and the options of the study that it follows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pipeline.analysis.fewshot.options import Rule
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.parameters import read_yaml


@dataclass(frozen=True)
class Place:
    """A study, the folders of a session, and what of params.yaml it follows."""

    study: str
    name: str  # of the session: annotations/NAME, .studio/NAME and out/studio/NAME
    psi: float  # truncation of the study
    pool: int  # samples in the pool
    size: int  # side of masks, px
    rule: Rule  # of every few-shot fit
    loop_tap_resolution: int  # px of the taps that guide edits
    checkpoint: Path
    labels: str  # label space of the masks
    teacher: str
    judge: str | None  # none: success is the guide's own opinion
    full: Path | None  # LSE of many samples, until there is one of annotations
    appearance: Path | None  # linear reading of images, for previews; none: the images
    align_corners: bool = False
    compute: str = "auto"
    root: Path = field(default_factory=Path)  # that all folders are below

    @property
    def annotations(self) -> Path:
        """Masks that were drawn here, and nothing else."""
        return self.root / "annotations" / self.name

    @property
    def state(self) -> Path:
        """Jobs, photos, the settled extractor."""
        return self.root / ".studio" / self.name

    @property
    def fewshot(self) -> Path:
        """The settled extractor."""
        return self.state / "fewshot.safetensors"

    def results(self, number: int) -> Path:
        """The folder of a job's files."""
        return self.root / "out" / "studio" / self.name / str(number)

    def photo(self, number: int) -> Path:
        """The folder of a photograph."""
        return self.state / "photos" / str(number)

    def data(self, kind: str) -> Path:
        """The study's latents or masks: the pipeline's where they are, else the session's own."""
        theirs = self.root / "data" / kind / f"{self.study}.zarr.zip"
        return theirs if theirs.exists() else self.state / f"{kind}.zarr.zip"

    @property
    def min_pixels(self) -> int:
        """Labelled pixels of a class, from which on an edit to it is tried."""
        return max(8, self.size**2 // 1024)

    @property
    def experiment(self) -> str:
        """The command that uses in the pipeline what was drawn here."""
        return f"dvc exp run -S 'studies.{self.study}.annotations=annotations/{self.name}'"

    def claim(self) -> None:
        """InputError if the folders are another study's; else they are this one's from now on."""
        self.state.mkdir(parents=True, exist_ok=True)
        mark = self.state / "session.json"
        if mark.exists() and (theirs := read_json(mark)["study"]) != self.study:
            raise InputError(
                f"session {self.name} of study {theirs}",
                f"a session of {self.study}",
                "choose another --name",
            )
        write_json(mark, {"study": self.study})


def find_place(study: str, name: str | None = None, root: Path = Path()) -> Place:
    """The place of a session by params.yaml in the folder `root`."""
    params = read_yaml(root / "params.yaml")
    studies = params.get("studies", {})
    item = studies[choose("study", study, studies)]
    name = study if name is None else name
    if not name.replace("_", "").isalnum():
        raise InputError(f"--name {name!r}", "letters, digits and _", "choose another --name")
    fitted = [
        root / "data" / "extractors" / study / f"{item['loop_extractor']}.safetensors",
        root / "checkpoints" / "extractors" / f"{study}.safetensors",
    ]
    readings = [root / folder / "appearance" for folder in ("data", "checkpoints")]
    edits = item.get("edits") or {}
    return Place(
        study=study,
        name=name,
        psi=item["sample"].get("truncation_psi", 0.5),
        pool=item["sample"]["pool"],
        size=item["features"]["label_size"],
        rule=_rule(params["fewshot_rule"]),
        loop_tap_resolution=edits.get("loop_tap_resolution", 128),
        checkpoint=root / "data" / "checkpoints" / f"{study}.safetensors",
        labels=_local(root, item["labels"]),
        teacher=_local(root, item["teacher"]),
        judge=_local(root, item["judge"]) if item.get("judge") else None,
        full=_first(fitted),
        appearance=_first([folder / f"{study}.safetensors" for folder in readings]),
        align_corners=params["cache_pixels"]["align_corners"],
        compute=params.get("compute", "auto"),
        root=root,
    )


def _first(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _local(root: Path, name: str) -> str:
    """A file below `root`; else a name of a label space, or of a model."""
    return str(root / name) if (root / name).exists() else name


def _rule(values: Mapping) -> Rule:
    known = {one.name for one in fields(Rule)}
    return Rule(**{key: value for key, value in values.items() if key in known})


def sample_words(study: str, root: Path = Path()) -> list[str]:
    """The options of `stages.sample_latents` for a study."""
    sample = read_yaml(root / "params.yaml")["studies"][study]["sample"]
    return [word for key, value in sample.items() for word in (f"--{key}", str(value))]


def load_words(study: str, root: Path = Path()) -> list[str]:
    """The options of `stages.fetch_checkpoint` for a study."""
    load = read_yaml(root / "params.yaml")["studies"][study]["load"]
    return [word for key, value in load.items() for word in (f"--{key}", str(value))]


def rule_words(rule: Rule) -> list[str]:
    """The options of a few-shot fit on a command line."""
    return [word for key, value in asdict(rule).items() for word in (f"--{key}", str(value))]
