"""Inputs that a queued experiment would not see are named, with what to do."""

import subprocess

import pytest

from pipeline.runtime.tracking import untracked


@pytest.fixture
def repository(tmp_path):
    def git(*command):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for path in ("annotations/mine/a.png", "data/teachers/t/w.bin", "teachers/t/w.bin"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("x")
    (tmp_path / ".gitignore").write_text("/data/\n/teachers/t\n")
    return tmp_path, git


def test_what_git_and_dvc_do_not_track_is_named(repository):
    folder, git = repository
    paths = ["annotations/mine", "data/teachers/t", "teachers/t", "gone"]
    ignored = "git ignores it: move it, `dvc add` it, and `git add` the .dvc file"
    assert untracked(paths, folder) == {
        "annotations/mine": "git add annotations/mine",
        "data/teachers/t": ignored,
        "teachers/t": ignored,
    }
    (folder / "teachers/t.dvc").write_text("outs:\n- path: t\n")
    git("add", "annotations/mine", "teachers/t.dvc")
    assert set(untracked(paths, folder)) == {"data/teachers/t"}
    assert untracked(["annotations/mine/a.png", "teachers/t/w.bin"], folder) == {}


def test_outside_a_repository_nothing_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    assert untracked(["mine"], tmp_path) == {}
