"""Parameters are read against dvc.yaml and the stages' options, before any stage runs."""

from functools import cache
from importlib import import_module
from pathlib import Path

from stages import options as options_of
from stages import run


def check_params() -> None:
    """Say in one sentence what params.yaml lacks, misspells, gives twice, or gives in vain."""
    from pipeline.runtime.parameters import check_parameters, read_yaml

    check_parameters(read_yaml(Path("params.yaml")), read_yaml(Path("dvc.yaml")), options)


@cache
def options(stage: str) -> dict[str, bool]:
    """The options of a stage, and whether each is required."""
    return options_of(getattr(import_module(f"stages.{stage}"), stage))


if __name__ == "__main__":
    run(check_params)
