import ast
from pathlib import Path

import pytest

from pipeline.runtime import imports
from pipeline.runtime.imports import closure, substance
from stages.__main__ import STAGES

ROOT = Path(__file__).parents[1]
TOY = {
    "__init__": "",
    "base": "x = 1\n",
    "middle": "from toy_house.base import x\n",
    "other": "y = 2\n",
    "lazy": "def f():\n    from toy_house import other\n    return other.y\n",
    "top": "from toy_house import middle\n",
    "words": "TEXT = 'help'\n",
    "spoken": "from toy_house import words\n",
}
TOPS = [f"toy_house.{name}" for name in ("top", "lazy", "spoken")]


@pytest.fixture
def house(tmp_path, monkeypatch):
    folder = tmp_path / "toy_house"
    folder.mkdir()
    for name, source in TOY.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def traced():
    imports._path.cache_clear()
    return {top: closure(top, ("toy_house",), ("toy_house.words",)) for top in TOPS}


def test_a_closure_holds_all_that_can_be_imported(house):
    found = {top: {name.rpartition(".")[2] for name in names} for top, names in traced().items()}
    assert found == {
        "toy_house.top": {"toy_house", "top", "middle", "base"},
        "toy_house.lazy": {"toy_house", "lazy", "other"},
        "toy_house.spoken": {"toy_house", "spoken"},
    }


@pytest.mark.parametrize(
    ("file", "source", "reached"),
    [
        ("base", "x = 2\n", {"toy_house.top"}),
        ("other", "y = 3\n", {"toy_house.lazy"}),
        ("__init__", "z = 1\n", set(TOPS)),
        ("base", '"""Words."""\n\n# why\nx = 1  # so\n', set()),
        ("words", "TEXT = 'other help'\n", set()),
    ],
)
def test_an_edit_reaches_those_that_import_it(house, file, source, reached):
    before = traced()
    (house / f"{file}.py").write_text(source)
    after = traced()
    assert {top for top in TOPS if before[top] != after[top]} == reached


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('x = """a\n\n  b"""\n\n', 'x = """a\n\n  b"""'),
        ('class A:\n    """All of it."""\n', None),
        ('"""Doc\nof lines."""\nx = "# no comment"  # a comment\n', 'x = "# no comment"'),
        ('def f():\n    """Doc."""\n    return """kept"""\n', 'def f():\n    return """kept"""'),
        ('class A:\n    """Doc."""\n\n    x: int = 1\n', "class A:\n    x: int = 1"),
        ('def f():\n    x = 1\n    """no docstring"""\n', None),
        ('x = 1\n"""no docstring"""\n', None),
        ('def f(): "one line"\n', None),
        ("x = 'é'  # ü\n\n\ny = 2", "x = 'é'\ny = 2"),
    ],
)
def test_only_comments_and_docstrings_are_left_out(source, left):
    assert substance(source) == (source.strip() if left is None else left)


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").rglob("*.py")), ids=str)
def test_the_substance_of_our_code_is_the_same_program(path):
    source = path.read_text()
    assert stripped(substance(source)) == stripped(source)


def stripped(source):
    """The syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


def test_every_stage_is_traced():
    found = {f"stages.{name}": closure(f"stages.{name}") for name in STAGES}
    for name in STAGES:
        assert f"stages.{name}" in found[f"stages.{name}"]
    assert "pipeline.extractors.solvers" in found["stages.fit_extractor"]
    assert "pipeline.extractors.solvers" not in found["stages.cache_features"]
