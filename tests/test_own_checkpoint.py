"""A user's own checkpoint: described, and fetched as a study's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from foreign import WRITERS, golden, part, torch_bytes

from pipeline.data.inspection import inspect_checkpoint, report
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.weights import read_safetensors
from stages.fetch_checkpoint import fetch_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=WRITERS)
def published(request, tmp_path):
    """A published file of each family."""
    path = tmp_path / f"{request.param}.bin"
    path.write_bytes(WRITERS[request.param]())
    return path


def fetch(folder, file, **options):
    checkpoint = folder / "checkpoint.safetensors"
    fetch_checkpoint(checkpoint, file=file, sha256=sha256(file), **options)
    return checkpoint


def test_fixed_noise_lies_in_the_fetched_file(tmp_path, published):
    tensors, facts = read_safetensors(fetch(tmp_path, published))
    noise = [value for name, value in tensors.items() if name.endswith("noise.map")]
    generator = load_generator(published)
    assert len(noise) == (0 if facts["family"] == "pggan" else len(generator.taps))
    assert all(value.std() > 0 for value in noise)
    assert facts["sha256"] == sha256(published) and facts["source"] == published.name


def test_taps_of_a_study(tmp_path, published):
    family = load_generator(published).family
    if family == "stylegan2":
        with pytest.raises(InputError, match="taps second_conv of a stylegan2"):
            fetch(tmp_path, published, taps="second_conv")
        return
    generator = load_generator(fetch(tmp_path, published, taps="second_conv"))
    assert [tap.name for tap in generator.taps] == [f"{r}px_conv2" for r in (4, 8, 16, 32)]


@pytest.mark.parametrize(
    "options, message",
    [
        pytest.param({"sha256": "0" * 64}, "wanted sha256 0000", id="another file"),
        pytest.param({"file": Path("gone.pkl")}, "no file at gone.pkl", id="no file"),
        pytest.param({"family": "pggan"}, "a stylegan2; wanted a pggan", id="another family"),
        pytest.param({"package": "x", "version": "1", "family": "dcgan"}, "both", id="both"),
        pytest.param({"file": None}, "neither", id="neither"),
        pytest.param({"class_idx": 3}, "a network without classes", id="no classes"),
    ],
)
def test_wrong_studies_get_a_sentence(tmp_path, options, message):
    file = tmp_path / "x.pkl"
    file.write_bytes(WRITERS["stylegan2"]())
    with pytest.raises(InputError, match=message):
        fetch_checkpoint(tmp_path / "out", **{"file": file, "sha256": sha256(file)} | options)
    assert not (tmp_path / "out").exists()


def test_a_file_is_found_beside_the_project(tmp_path, monkeypatch):
    """A temporary experiment runs in a copy without untracked files; DVC_ROOT names the project."""
    file = tmp_path / "project" / "weights" / "x.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(WRITERS["stylegan2"]())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    fetch_checkpoint(tmp_path / "out", file=Path("weights/x.pkl"), sha256=sha256(file))
    assert load_generator(tmp_path / "out").family == "stylegan2"


def test_inspection(published):
    found = inspect_checkpoint(published, None, samples=1024)
    generator = load_generator(published)
    values = [c * h * w for tap in found["taps"] for c, h, w in [tap["shape"]]]
    assert [tap["name"] for tap in found["taps"]] == [tap.name for tap in generator.taps]
    assert [tap["bytes_per_sample"] for tap in found["taps"]] == [4 * v for v in values]
    assert found["trial"]["finite"] and found["trial"]["image_std"] > 0
    assert found["mapping_depth"] == (0 if generator.family == "pggan" else 4)
    study = found["study"]
    assert study["features_gib_by_max_tap_resolution"]["32"] == round(sum(values) / 2**20, 3)
    assert study["pixels_gib"] == round(512 * sum(t.channels for t in generator.taps) / 2**20, 3)
    text = report(found)
    assert all(tap.name in text for tap in generator.taps) and "trial: finite" in text


def test_inspection_says_when_an_image_is_not_finite(tmp_path):
    tensors = part(golden("pggan"), "sd/")
    tensors["output3.bias"] = tensors["output3.bias"] * float("nan")
    path = tmp_path / "x"
    path.write_bytes(torch_bytes(tensors))
    assert "NOT FINITE" in report(inspect_checkpoint(path, None, 1))


def test_inspection_as_a_command(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(WRITERS["pggan"]())
    command = [sys.executable, "-m", "stages.inspect_checkpoint", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["family"] == "pggan"


def documented_studies() -> dict[str, dict]:
    """The params.yaml entries that docs/studies.md shows."""
    text = (ROOT / "docs" / "studies.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    found = {}
    for block in blocks:
        found |= (yaml.safe_load(block) or {}).get("studies", {})
    return found


def test_documented_studies_have_the_keys_of_those_that_run():
    studies = yaml.safe_load((ROOT / "params.yaml").read_text())["studies"]
    shown = documented_studies()
    assert len(shown) >= 2
    wanted = {
        name: set(value) for name, value in studies["ffhq"].items() if isinstance(value, dict)
    }
    for name, study in shown.items():
        missing = studies["ffhq"].keys() - study.keys()
        assert not missing, f"{name} lacks {missing}"
        for section in wanted.keys() - {"load"}:
            assert set(study[section]) == wanted[section], f"{name}, {section}"
        options = set(study["load"])
        assert options <= {"file", "sha256", "class_idx", "taps", "family"}


def test_a_new_study_changes_no_cell_of_the_others(tmp_path, monkeypatch):
    """Every cell of a study names its own files, so DVC re-runs none of the others'."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)  # cells are named relative to where one stands
    subprocess.run(["git", "init", "-q"], check=True)
    Repo.init().close()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())

    def cells() -> dict[str, tuple]:
        Path("params.yaml").write_text(yaml.safe_dump(params))
        with Repo() as project:
            return {
                stage.addressing: (
                    stage.cmd,
                    sorted(map(str, stage.deps)),
                    sorted(map(str, stage.outs)),
                )
                for stage in project.index.stages
            }

    before = cells()
    name, study = next(iter(documented_studies().items()))
    params["studies"][name] = study
    after = cells()
    assert {cell: after[cell] for cell in before} == before
    added = after.keys() - before.keys()
    assert f"fetch_checkpoint@{name}" in added and all(name in cell for cell in added)
