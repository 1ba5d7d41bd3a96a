import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import yaml

from pipeline.generators.latents import sample_z
from stages.__main__ import STAGES

ROOT = Path(__file__).parents[1]
CODE = ("data/code/", "pipeline", "stages")


def test_the_import_rules_hold():
    beside = Path(sys.executable).with_name("lint-imports")
    command = str(beside) if beside.exists() else shutil.which("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_annotations_are_checked_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        sample_z([1], z_dim="ten")


# Functions of more parameters than MOST, all of them named when they are called.
MANY = {"stages.edit_semantics.edit_semantics", "stages.measure_editing.measure_editing"}
LINES, LONGEST, MOST = 350, 50, 8  # of a file, of a function, and its parameters


def sources() -> dict[str, str]:
    """{module: source} of the library, the stages and the benchmarks."""
    folders = ("pipeline", "stages", "benchmarks", "examples", "studio")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p.read_text() for p in paths}


def functions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    named = (*function.args.posonlyargs, *function.args.args)
    return [one.arg for one in named if one.arg not in ("self", "cls")]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [*positional(function), *(one.arg for one in function.args.kwonlyargs)]


def test_files_and_functions_are_short():
    found = sources()
    assert len(found) > 200
    long = {name: len(s.splitlines()) for name, s in found.items() if s.count("\n") > LINES}
    for name, source in found.items():
        for one in functions(source):
            lines = one.end_lineno - one.lineno + 1
            long |= {f"{name}.{one.name}": lines} if lines > LONGEST else {}
    assert not long


def test_functions_have_few_parameters():
    many = {
        f"{name}.{one.name}": one
        for name, source in sources().items()
        for one in functions(source)
        if len(parameters(one)) > MOST
    }
    assert many.keys() == MANY and len(MANY) <= 3


def definitions() -> dict[str, dict]:
    """The stages of dvc.yaml, without their foreach."""
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in found.items()}


def modules(definition: dict) -> list[str]:
    """The stage that each command line of a definition runs."""
    commands = definition["cmd"]
    commands = commands if isinstance(commands, list) else [commands]
    return [re.search(r"-m stages\.(\w+)", command).group(1) for command in commands]


CELLS = list(definitions())


@pytest.mark.parametrize("stage", CELLS)
def test_a_stage_depends_on_its_code(stage):
    definition = definitions()[stage]
    code = [dep for dep in definition["deps"] if dep.startswith(CODE)]
    if stage == "trace_imports":
        assert code == ["pipeline", "stages"]
    elif definition.get("frozen"):
        assert not code, "a frozen stage runs by hand only; its result is committed"
    else:
        assert code == [f"data/code/{name}.json" for name in sorted(set(modules(definition)))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_runs_the_stage_of_its_name(stage):
    assert set(modules(definitions()[stage])) == {stage}


# What a stage waits for and does not read: what the other stage kept in the store.
ORDER = {"data/results/${key}/fewshot_sweep.json"}


@pytest.mark.parametrize("stage", CELLS)
def test_a_command_names_all_its_files(stage):
    """What a stage reads and writes is in deps and outs, or DVC would not notice its change."""
    definition = definitions()[stage]
    commands = definition["cmd"]
    words = " ".join(commands if isinstance(commands, list) else [commands]).split()
    paths = {word for word in words if "/" in word and not word.startswith("-")}
    known = list(definition.get("deps", []))
    for kind in ("outs", "metrics", "plots"):
        known += [next(iter(o)) if isinstance(o, dict) else o for o in definition.get(kind, [])]
    known = [path for path in known if not path.startswith(CODE)]
    unknown = [path for path in paths if not any(path == k or k.startswith(path) for k in known)]
    assert not unknown, f"{stage} names {unknown}, which are in neither deps nor outs"
    named = {word for word in words if word in known or any(k.startswith(word) for k in known)}
    for path in (path for path in known if path not in ORDER or path in words):
        assert any(path == n or path.startswith(n) for n in named), f"{path} is not in the command"
