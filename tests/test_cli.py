import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from pipeline.runtime.options import comments
from stages import flatten
from stages.__main__ import STAGES, TOOLS
from stages.arguments import ARGUMENTS

ROOT = Path(__file__).parents[1]
COMMANDS = (*STAGES, *TOOLS)

# Asks each command for its help in one process, then says which slow packages came along.
ALL_HELPS = """
import contextlib, io, json, runpy, sys
texts = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            assert not end.code, (name, end.code)
    texts[name] = text.getvalue()
slow = ("torch", "zarr", "numpy", "matplotlib", "pandas", "scipy", "dvc")
print(json.dumps([texts, [module for module in slow if module in sys.modules]]))
"""


def run(*words, **options):
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    words = [sys.executable, *words]
    return subprocess.run(words, capture_output=True, text=True, env=env, check=False, **options)


def test_the_commands_are_listed_in_order():
    done = run("-m", "stages")
    assert done.returncode == 0 and done.stderr == ""
    listed = re.findall(r"^  (\w+)  +(\S.*)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in listed] == list(COMMANDS)
    assert all(sentence.endswith(".") for _, sentence in listed)


def test_every_file_is_a_listed_command():
    files = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert files - {"__init__", "__main__", "arguments", "paths"} == set(COMMANDS)
    cells = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = [c for cell in cells.values() for c in commands_of(cell)]
    assert set(re.findall(r"-m stages\.(\w+)", " ".join(commands))) == set(STAGES)


def commands_of(cell):
    """The command lines of a stage of dvc.yaml."""
    command = cell.get("do", cell)["cmd"]
    return command if isinstance(command, list) else [command]


@pytest.fixture(scope="module")
def helps():
    done = run("-c", ALL_HELPS, *COMMANDS, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_is_fast_because_it_loads_nothing_slow(helps):
    assert helps[1] == []


def command(name):
    return getattr(importlib.import_module(f"stages.{name}"), name)


@pytest.mark.parametrize("name", STAGES)
def test_help_explains_every_parameter(helps, name):
    shown = " ".join(helps[0][name].replace("│", " ").split())
    for parameter in inspect.signature(flatten(command(name))).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert f"--{parameter.name.replace('_', '-')} " in shown
        text = parameter.annotation.__metadata__[0].help
        assert text and text[:30] in shown


def test_no_explanation_is_left_over():
    read = set()
    for name in (*STAGES, *TOOLS):
        if name != "store":  # an app with its own words
            read |= set(unexplained(command(name)))
    assert set(ARGUMENTS) == read - {"return"}


def unexplained(thing):
    """Parameters of a stage, and fields of its dataclasses, that have no comment."""
    hints, said = get_type_hints(thing), comments(thing)
    for name, hint in hints.items():
        if is_dataclass(hint):
            yield from unexplained(hint)
        elif name not in said:
            yield name


def test_an_unknown_option_is_refused():
    paths = ["a.safetensors", "b.zarr.zip"]
    sizes = [f"--{split}=1" for split in ("train", "validation", "test", "pool", "seed")]
    done = run("-m", "stages.sample_latents", *paths, *sizes, "--truncation_psi=1", "--shots=3")
    assert done.returncode == 2
    assert re.search(r"No such option:? '?--shots", done.stderr)


def test_a_missing_option_is_refused():
    done = run("-m", "stages.sample_latents", "a", "b", "--seed=0")
    assert done.returncode == 2
    assert "Missing option" in done.stderr and "--train" in done.stderr


def test_bad_input_is_one_line(tmp_path):
    done = run("-m", "stages.store", "verify", str(tmp_path / "gone.json"))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert re.match(
        r"error: got no file at .*gone\.json; wanted a JSON file; run `dvc repro`", lines[0]
    )


def test_underscores_and_dashes_are_the_same():
    words = ["a", "b", "c", "d", "--samples_per_shard=x"]
    done = run("-m", "stages.cache_features", *words)
    assert done.returncode == 2 and "samples" in done.stderr
    assert "No such option" not in done.stderr
