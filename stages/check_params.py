"""Parameters are read against dvc.yaml and the stages' options, before any stage runs."""

from functools import cache
from importlib import import_module
from pathlib import Path

from stages import options as options_of
from stages import run

INPUTS = ("teacher", "judge", "labels", "labels_full", "annotations")  # paths of a study


def check_params() -> None:
    """Say in one sentence what params.yaml lacks, misspells, gives twice, or gives in vain."""
    from pipeline.runtime.parameters import check_parameters, read_yaml
    from pipeline.runtime.tracking import untracked

    params = read_yaml(Path("params.yaml"))
    check_parameters(params, read_yaml(Path("dvc.yaml")), options)
    inputs = [study[key] for study in params.get("studies", {}).values() for key in INPUTS]
    for path, remedy in untracked(inputs).items():
        print(f"note: queued experiments will not see {path}, which git does not track; {remedy}")


@cache
def options(stage: str) -> dict[str, bool]:
    """The options of a stage, and whether each is required."""
    return options_of(getattr(import_module(f"stages.{stage}"), stage))


if __name__ == "__main__":
    run(check_params)
