"""The README says what the reports say."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.reporting import measured, pages
from pipeline.reporting.headline import supported
from pipeline.reporting.pages import fill
from pipeline.runtime.errors import InputError
from stages.make_tables import make_tables

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()
STUDIES = yaml.safe_load((REPO / "params.yaml").read_text())["studies"]


def committed(path: str) -> str:
    """A file as the last commit has it: a run changes reports, and the README only on request."""
    words = ["git", "show", f"HEAD:{path}"]
    return subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True).stdout


def test_the_table_is_that_of_the_committed_metrics():
    studies = sorted(STUDIES, reverse=True)
    metrics = {name: json.loads(committed(f"reports/metrics/{name}.json")) for name in studies}
    text = committed("README.md")
    assert pages.fill(text, {"results": pages.headline_table(metrics)}) == text


def test_measurements_are_those_of_the_benchmarks():
    page = (REPO / "reports" / "measured.md").read_text()
    assert pages.measured_page(REPO / "reports" / "benchmarks") == page


def test_the_readme_is_short():
    assert len(README.encode()) <= 10_000


def test_the_first_block_of_the_readme_runs(monkeypatch, published):
    """On the fast study: its generator is fetched for other tests anyway."""
    from examples import segment_one_sample as example
    from pipeline.generators.registry import load_generator

    monkeypatch.chdir(REPO)
    monkeypatch.setattr(
        example, "fetched_generator", lambda study: load_generator(published("digiface"))
    )
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1].replace("ffhq", "digiface")
    names: dict = {}
    exec(code, names)
    assert names["mask"].shape == (256, 256)
    assert names["image"].shape[1] == 3


def test_committed_extractors_segment_the_study_they_are_of(tmp_path, monkeypatch, published):
    from examples import segment_one_sample as example
    from pipeline.generators.registry import load_generator

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        example, "fetched_generator", lambda study: load_generator(published(study))
    )
    example.main("digiface")
    with Image.open("sample.png") as sample:
        assert sample.size == (512, 256)


def example(*words, **options):
    """The example, started as a user starts it."""
    command = [sys.executable, "examples/segment_one_sample.py", *words]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.Popen(
        command, cwd=REPO, env=env, text=True, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "extractor 'nobody'; wanted one of digiface, ffhq, ffhq_16shot"),
        (("ffhq", "seven"), "seed 'seven'; wanted a whole number"),
    ],
)
def test_the_example_says_what_it_knows(words, said):
    with example(*words) as started:
        _, errors = started.communicate()
    assert started.returncode == 2
    assert said in errors and errors.count("\n") == 1


def test_an_unknown_study_has_no_generator():
    from examples.segment_one_sample import fetched_generator

    with pytest.raises(InputError, match="study 'nobody'; wanted one of digiface, ffhq"):
        fetched_generator("nobody")


QUIET = """
from examples import segment_one_sample as example
from pipeline.generators.registry import load_generator
example.fetched_generator = lambda study: load_generator({path!r})
example.run(["digiface"])
"""


def test_the_example_ends_quietly_when_nobody_reads_on(tmp_path, published):
    """As before `| head -1`, which may have gone by the first line."""
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-c", QUIET.format(path=str(published("digiface")))]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(
        words, cwd=tmp_path, env=env, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (tmp_path / "sample.png").exists()
    assert done.returncode == -signal.SIGPIPE and b"Traceback" not in done.stderr


def test_headline_metrics_are_few_flat_numbers():
    for study in STUDIES:
        values = json.loads((REPO / f"reports/metrics/{study}.json").read_text())
        assert 10 < len(values) <= 20
        assert all(isinstance(value, int | float) for value in values.values())


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(79.1, 79.3, 79.2), (74.2, 84.2, 79), (50.0, 108.4, 80)]
)
def test_a_headline_has_the_digits_that_its_interval_supports(low, high, shown):
    assert supported({"mean": 79.2, "low": low, "high": high}) == shown


def test_tables_at_larger_sizes_are_those_of_their_metrics(tmp_path):
    paper = REPO / "reports" / "paper"
    make_tables(paper / "metrics", paper / "costs", tmp_path)
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
    documents = [REPO / "README.md", *(REPO / "docs").glob("*.md"), REPO / "reports/results.md"]
    for page in documents:
        for path in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text()):
            assert (page.parent / path).exists(), f"{page}: {path}"
    makefile = (REPO / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)`?", README):
        assert f"\n{target}:" in makefile, target


def test_links_into_the_page_of_results_find_their_place():
    page = (REPO / "reports" / "results.md").read_text()
    linked = set()
    for path in [REPO / "README.md", *(REPO / "docs").glob("*.md")]:
        linked |= set(re.findall(r"results\.md#([^)]+)\)", path.read_text()))
    assert {"table2", "edits"} <= linked, "a link goes to its table, not to the whole page"
    for anchor in linked:
        assert f'<a id="{anchor}"></a>' in page, anchor


def test_the_readme_says_how_sure_the_results_are():
    text, page = committed("README.md"), committed("reports/results.md")
    said = re.search(r"<!-- caption: [^>]*-->\n(.*?)\n<!-- end of caption -->", text, re.DOTALL)[1]
    assert len(said.splitlines()) == len(STUDIES)
    for line in said.splitlines():
        assert line in page.splitlines(), "the caption is made with the page, from the same results"


def test_weights_agree_with_params():
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    from pipeline.runtime.weights import read_safetensors

    for name, teacher in params["teachers"].items():
        _, facts = read_safetensors(REPO / "checkpoints" / f"{name}.safetensors")
        recipe = teacher | params["train_teacher"]
        assert {key: facts[key] for key in recipe} == recipe
