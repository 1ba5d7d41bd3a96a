"""The code becomes a file of digests per stage; a DVC cell depends on its own stage's file."""

from pathlib import Path

from stages import run


def trace_imports(
    code: Path,  # folder for a JSON of digests per stage
) -> None:
    """Write <stage>.json: a digest of each module that the stage can import, without comments."""
    from pipeline.runtime.files import write_json
    from pipeline.runtime.imports import closure
    from stages.__main__ import STAGES

    for name in STAGES:
        write_json(code / f"{name}.json", closure(f"stages.{name}", texts=("stages.arguments",)))


if __name__ == "__main__":
    run(trace_imports)
