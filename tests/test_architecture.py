import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import jaxtyping
import pytest
import yaml

from pipeline.latents import sample_z
from stages import STAGES

ROOT = Path(__file__).parents[1]
CODE = ("pipeline/", "stages/")


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


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("pipeline", "stages", cache_dir=None)


def path_of(module: str) -> str:
    """The file of a module, relative to the project."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Files that a module can import, lazily or not, with the packages that import implies."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        parent = name.rpartition(".")[0]
        waiting += [*graph.find_modules_directly_imported_by(name), *([parent] if parent else [])]
    return {path_of(name) for name in found}


def files_under(dep: str) -> set[str]:
    """The Python files that a dep covers."""
    path = ROOT / dep
    files = path.rglob("*.py") if path.is_dir() else [path]
    return {str(file.relative_to(ROOT)) for file in files}


def shortest(files: set[str]) -> list[str]:
    """`files` as deps: a package of which all files are needed is named as a folder."""
    packages = {str(Path(file).parent) for file in files} - {"pipeline", "stages"}
    whole = {package for package in packages if files_under(package) <= files}
    covered = set().union(*map(files_under, whole))
    return sorted(whole | (files - covered))


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
def test_a_stage_depends_on_exactly_what_it_imports(graph, stage):
    definition = definitions()[stage]
    if definition.get("frozen"):
        pytest.skip("a frozen stage runs by hand only; its result is committed")
    needed = set().union(*(closure(graph, f"stages.{name}") for name in modules(definition)))
    deps = [dep for dep in definition["deps"] if dep.startswith(CODE)]
    listed = {dep: files_under(dep) for dep in deps}
    covered = set().union(*listed.values())
    missing = sorted(needed - covered)
    idle = [dep for dep, files in listed.items() if not files & needed]
    wanted = "\n".join(f"      - {dep}" for dep in shortest(needed))
    assert not missing and not idle, (
        f"{stage} lacks deps {missing} and has idle ones {idle}; wanted\n{wanted}"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_runs_the_stage_of_its_name(stage):
    assert set(modules(definitions()[stage])) == {stage}


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
    for path in known:
        assert any(path == n or path.startswith(n) for n in named), f"{path} is not in the command"
