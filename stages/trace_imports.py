"""The code becomes a file of digests a stage; a DVC cell depends on its own stage's file."""

from pathlib import Path

from stages import run


def trace_imports(code: Path) -> None:
    """Write <stage>.json: a digest of each module that the stage can import, comments apart."""
    from pipeline.runtime.files import write_json
    from pipeline.runtime.imports import closures
    from stages.__main__ import STAGES

    modules = {f"stages.{name}": name for name in STAGES}
    traced = closures(modules, ("pipeline", "stages"), texts={"stages.help"})
    code.mkdir(parents=True, exist_ok=True)
    for module, digests in traced.items():
        write_json(code / f"{modules[module]}.json", digests)


if __name__ == "__main__":
    run(trace_imports)
