"""A user's own checkpoint: described, and fetched as a study's."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from foreign import WRITERS, golden, part, torch_bytes

from pipeline.data.inspection import inspect_checkpoint, report
from pipeline.data.new_study import POOL, Limits, choose_sizes, entry
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.parameters import check_parameters, read_yaml
from pipeline.runtime.weights import read_safetensors
from stages import flatten
from stages.check_params import check_params, options
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
    flatten(fetch_checkpoint)(checkpoint, file=file, sha256=sha256(file), **options)
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
        load = {"file": file, "sha256": sha256(file)} | options
        flatten(fetch_checkpoint)(tmp_path / "out", **load)
    assert not (tmp_path / "out").exists()


def test_a_file_is_found_beside_the_project(tmp_path, monkeypatch):
    """A temporary experiment runs in a copy without untracked files; DVC_ROOT names the project."""
    file = tmp_path / "project" / "weights" / "x.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(WRITERS["stylegan2"]())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    flatten(fetch_checkpoint)(tmp_path / "out", file=Path("weights/x.pkl"), sha256=sha256(file))
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


def test_documented_studies_have_the_keys_that_stages_read():
    params, pipeline = read_yaml(ROOT / "params.yaml"), read_yaml(ROOT / "dvc.yaml")
    shown = documented_studies()
    assert len(shown) >= 2
    check_parameters(params | {"studies": shown}, pipeline, options)


def with_study(lines: str) -> str:
    """params.yaml with lines pasted below `studies:`."""
    return (ROOT / "params.yaml").read_text().replace("\nstudies:\n", f"\nstudies:\n{lines}\n")


def test_a_new_study_changes_no_cell_of_the_others(cells):
    """Every cell of a study names its own files, so DVC re-runs none of the others'."""
    before = cells((ROOT / "params.yaml").read_text())
    name, study = next(iter(documented_studies().items()))
    after = cells(with_study(textwrap.indent(yaml.safe_dump({name: study}), "  ")))
    assert {cell: after[cell] for cell in before} == before
    added = after.keys() - before.keys()
    assert f"fetch_checkpoint@{name}" in added and all(name in cell for cell in added)


def test_the_entry_that_is_printed_is_a_study(cells, published):
    command = [sys.executable, "-m", "stages.inspect_checkpoint", str(published)]
    done = subprocess.run(
        [*command, "--study", "mine"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert len(done.stdout.splitlines()) <= 16
    found = cells(with_study(done.stdout))
    check_params()
    kinds = {name.partition("@")[0] for name in found if "@ffhq" in name}
    assert {name.partition("@")[0] for name in found if "@mine" in name} == kinds
    fetch = found["fetch_checkpoint@mine"][0]
    assert f"--file {published} --sha256 {sha256(published)}" in fetch
    assert "--max_tap_resolution 16" in found["cache_features@mine"][0], "of its 32 px"


# Facts of a generator like StyleGAN2 at 256 px, with a second per 10 samples.
FOUND = {
    "resolution": 256,
    "taps": [{"name": f"{side}px", "shape": [512, side, side]} for side in (8, 32, 64, 128, 256)],
    "channels": 5 * 512,
    "trial": {"seconds_per_sample": 0.1},
}


@pytest.mark.parametrize(
    ("changes", "limits", "train", "side"),
    [
        pytest.param({}, (8, 4, 32), 256, 128, id="enough samples, then the finest taps"),
        pytest.param({}, (64, 32, 32), 2048, 128, id="a larger disk: more samples"),
        pytest.param({}, (2, 4, 32), 256, 64, id="a smaller disk: coarser taps first"),
        pytest.param({}, (8, 0.3, 32), 64, 128, id="a small pixel store: fewer samples"),
        pytest.param({}, (8, 4, 1), 64, 128, id="little memory: fewer samples"),
        pytest.param({"trial": {"seconds_per_sample": 1}}, (64, 32, 32), 256, 128, id="slow"),
        pytest.param({"resolution": 64}, (8, 4, 32), 1024, 32, id="small images: coarser taps"),
    ],
)
def test_sizes_fit_the_machine(changes, limits, train, side):
    sizes = choose_sizes(FOUND | changes, Limits(*limits))
    assert (sizes.train, sizes.max_tap_resolution) == (train, side)


def test_values_are_exact_where_they_take_little():
    few = [{"name": "8px", "shape": [16, 8, 8]}, {"name": "16px", "shape": [16, 16, 16]}]
    assert choose_sizes(FOUND, Limits(8, 4, 32)).stored == "int8"
    small = choose_sizes(FOUND | {"resolution": 32, "taps": few, "channels": 32}, Limits(8, 4, 32))
    assert small.stored == "float16" and small.splits["pool"] == POOL


def test_a_generator_that_fits_no_machine_is_a_sentence():
    slow = FOUND | {"trial": {"seconds_per_sample": 60}}
    with pytest.raises(InputError, match=r"got a generator of which 192 samples .* minutes for a"):
        choose_sizes(slow, Limits(8, 4, 32))


def test_the_name_of_a_study_is_a_word():
    sizes = choose_sizes(FOUND, Limits(8, 4, 32))
    with pytest.raises(InputError, match=r"got study 'my\.faces'; wanted letters, digits and"):
        entry("my.faces", "0" * 64, FOUND, None, sizes)
