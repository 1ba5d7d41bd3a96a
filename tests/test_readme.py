"""The README says what the reports say."""

import json
import re
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()


def test_results_are_those_of_the_reports():
    block = README.split("<!-- results")[1].split("-->", 1)[1].split("<!-- end")[0]
    rows = [line for line in block.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 4
    for row in rows:
        study, name, per_image, dataset, judge, ceiling = (c.strip() for c in row.split("|")[1:-1])
        folder = REPO / "reports" / "metrics" / study
        scores = json.loads((folder / f"{name}.json").read_text())
        for cell, protocol in ((per_image, "miou_per_image"), (dataset, "miou_dataset")):
            found = scores["against_teacher"][protocol]
            said = [float(v) for v in re.findall(r"\d+\.\d", cell)]
            assert said == [round(found[k], 1) for k in ("mean", "low", "high")], row
        assert float(judge) == round(scores["against_judge"]["miou_dataset"]["mean"], 1), row
        top = json.loads((folder / "ceiling.json").read_text())["miou_dataset"]["mean"]
        assert float(ceiling) == round(top, 1), row


def test_files_and_targets_that_the_readme_names_exist():
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (REPO / path).exists(), path
    makefile = (REPO / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", README):
        assert f"\n{target}:" in makefile, target


def test_reports_and_weights_agree_with_params():
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    for study in params["studies"]:
        for extractor in params["extractors"]:
            scores = json.loads((REPO / f"reports/metrics/{study}/{extractor}.json").read_text())
            wanted = params["studies"][study]["sample"]["test"]
            assert scores["against_teacher"]["images"] == wanted
    from pipeline.checkpoints import read_safetensors

    for name, teacher in params["teachers"].items():
        _, facts = read_safetensors(REPO / "checkpoints" / f"{name}.safetensors")
        recipe = teacher | params["train_teacher"]
        assert {key: facts[key] for key in recipe} == recipe
