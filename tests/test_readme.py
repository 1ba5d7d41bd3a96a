"""The README says what the reports say."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pipeline.reporting.readme import blocks, fill

from pipeline.reporting import measured
from pipeline.reporting.tables import read_metrics
from pipeline.runtime.errors import InputError
from stages.make_tables import make_tables

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()


def test_results_are_those_of_the_reports():
    """update_readme with reports/metrics and reports/benchmarks would change nothing."""
    found = blocks(read_metrics(REPO / "reports" / "metrics"))
    found |= {"measured": measured.table(REPO / "reports" / "benchmarks")}
    assert fill(README, found) == README


def test_tables_at_larger_sizes_are_those_of_their_metrics(tmp_path):
    paper = REPO / "reports" / "paper"
    make_tables(paper / "metrics", tmp_path)
    for table in (paper / "tables").iterdir():
        assert table.read_text() == (tmp_path / table.name).read_text(), table.name


def test_a_readme_without_a_block_is_said():
    with pytest.raises(InputError, match="0 blocks <!-- results"):
        fill("# Title", {"results": "x"})
    text = "a\n<!-- results: from JSON -->\nold\n<!-- end of results -->\nb"
    filled = fill(text, {"results": "| 1 |"})
    assert filled == "a\n<!-- results: from JSON -->\n| 1 |\n<!-- end of results -->\nb"


def test_a_folder_without_benchmarks_leaves_the_readme_alone(tmp_path):
    with pytest.raises(InputError, match=r"no benchmarks in .*; run `make bench`"):
        measured.table(tmp_path)


def test_files_and_targets_that_the_readme_names_exist():
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (REPO / path).exists(), path
    makefile = (REPO / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", README):
        assert f"\n{target}:" in makefile, target


def test_reports_and_weights_agree_with_params():
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for study in params["studies"]:
        for extractor in params["extractors"]["names"]:
            path = REPO / f"reports/metrics/{study}/scores/{extractor}.json"
            scores = json.loads(path.read_text())
            wanted = params["studies"][study]["sample"]["test"]
            assert scores["against_teacher"]["images"] == wanted
    from pipeline.runtime.weights import read_safetensors

    for name, teacher in params["teachers"].items():
        _, facts = read_safetensors(REPO / "checkpoints" / f"{name}.safetensors")
        recipe = teacher | params["train_teacher"]
        assert {key: facts[key] for key in recipe} == recipe
