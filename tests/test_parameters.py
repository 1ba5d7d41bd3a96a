"""params.yaml fits dvc.yaml and the stages, and what does not fit is one sentence."""

import inspect
import itertools
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from pipeline.runtime.errors import InputError
from pipeline.runtime.parameters import check_parameters, read_yaml
from stages import flatten
from stages.check_params import options

ROOT = Path(__file__).parents[1]
PIPELINE = read_yaml(ROOT / "dvc.yaml")
MINIMAL = {
    "load": {"file": "weights/mine.pkl", "sha256": "0" * 64},
    "teacher": "checkpoints/face-unet.safetensors",
    "judge": "checkpoints/face-pyramid.safetensors",
    "labels": "labels/faces15.yaml",
    "labels_full": "labels/faces19.yaml",
    "annotations": "annotations/none",
    "loop_extractor": "lse",
    "sample": {"train": 256, "validation": 64, "test": 128, "pool": 80},
    "features": {"label_size": 256, "max_tap_resolution": 128},
    **{section: {} for section in ("pixels", "geometry", "scs", "edits", "directions")},
}


@pytest.fixture
def params():
    return read_yaml(ROOT / "params.yaml")


def changed(params: dict, keys: str, value: object) -> None:
    """Set the value of dotted keys, or remove it: None."""
    *parents, last = keys.split(".")
    for key in parents:
        params = params[key]
    if value is None:
        del params[last]
    else:
        params[last] = value


def test_the_parameters_of_the_project_fit(params):
    check_parameters(params, PIPELINE, options)


def test_a_study_that_leaves_all_defaults_as_they_are_fits(params):
    params["studies"] = {"mine": MINIMAL}
    check_parameters(params, PIPELINE, options)


def shared(params: dict):
    """(stage, option, value) of all options that params.yaml gives to all studies alike."""
    for stage in PIPELINE["stages"].values():
        commands = stage.get("do", stage)["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            (name,) = re.findall(r"-m stages\.(\w+)", command)
            for option, keys in re.findall(r"(?:--(\w+) )?\$\{([\w.]+)\}", command):
                value = params
                for key in [] if keys.startswith(("item", "key")) else keys.split("."):
                    value = value[key]
                if value is not params:
                    given = value if isinstance(value, dict) else {option: value}
                    yield from ((name, *pair) for pair in given.items())


def test_defaults_of_options_are_the_values_of_all_studies(params):
    """`--help` shows what the study runs; a value of one study alone is no default."""
    given = list(shared(params))
    assert ("measure_editing", "steps", 50) in given and ("fit_fewshot", "seed", 0) in given
    differing = {}
    for name, option, value in given:
        stage = getattr(import_module(f"stages.{name}"), name)
        one = inspect.signature(flatten(stage)).parameters[option]
        if one.default not in (one.empty, value):
            differing[f"{name} --{option}"] = one.default, value
    assert not differing


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        pytest.param(
            "studies.ffhq.edits",
            None,
            "got no `edits` in studies.ffhq of params.yaml; wanted what stage measure_editing of "
            "dvc.yaml reads; add `edits:` (a section may be {}), as docs/studies.md shows",
            id="a study without a section",
        ),
        pytest.param(
            "studies.ffhq.labels",
            None,
            "got no `labels` in studies.ffhq of params.yaml; wanted what stage label_images of ",
            id="a study without a path",
        ),
        pytest.param(
            "studies.ffhq.sample.train",
            None,
            "got no `train` in studies.ffhq.sample of params.yaml; wanted a value for stage "
            "sample_latents, which has no default for it; add it",
            id="an option without a default",
        ),
        pytest.param(
            "studies.ffhq.geometri",
            {},
            "got `geometri` in studies.ffhq of params.yaml, which no stage of dvc.yaml reads; "
            "wanted values that a stage reads; rename it to `geometry`",
            id="an unknown section of a study",
        ),
        pytest.param(
            "studies.ffhq.scs.target",
            3,
            "got `target` in studies.ffhq.scs of params.yaml; wanted an option of "
            "stages.measure_sampling; rename it to `targets`",
            id="an unknown option of a study",
        ),
        pytest.param(
            "fit_rule.zzz",
            1,
            "got `zzz` in fit_rule of params.yaml; wanted an option of stages.fit_extractor; "
            "remove it",
            id="an unknown option of a section",
        ),
        pytest.param(
            "defaults",
            {"edits": {"rows": 3}},
            "got `defaults` in params.yaml, which no stage of dvc.yaml reads; wanted",
            id="a section that no stage reads",
        ),
        pytest.param(
            "studies.ffhq.scs",
            {8: 1},
            "got `8` in studies.ffhq.scs of params.yaml; wanted an option of "
            "stages.measure_sampling; remove it",
            id="a key that is a number",
        ),
        pytest.param(
            "studies.ffhq",
            MINIMAL | {7: 3},
            "got `7` in studies.ffhq of params.yaml, which no stage of dvc.yaml reads; wanted",
            id="a value that no stage reads, named by a number",
        ),
        pytest.param(
            "shots_of_all",
            3,
            "got `shots_of_all` in params.yaml, which no stage of dvc.yaml reads; wanted",
            id="a value that no stage reads",
        ),
        pytest.param(
            "fewshot",
            {"selection": "random", "repeats": 1},
            "got no `seed` in fewshot of params.yaml; wanted what stage sweep_fewshot of dvc.yaml "
            "reads; add `seed:` (a section may be {}), as docs/studies.md shows",
            id="a value that several stages share",
        ),
        pytest.param(
            "selection_fit.l2",
            [0.1],
            "got `l2` for stage fit_full in fit_rule of params.yaml and in selection_fit of "
            "params.yaml; wanted one home for each option; remove it from one of them",
            id="an option with two homes",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(params, keys, value, said):
    changed(params, keys, value)
    with pytest.raises(InputError) as error:
        check_parameters(params, PIPELINE, options)
    assert str(error.value).startswith(said)


def test_an_empty_section_is_written_as_such(params):
    params["studies"]["ffhq"]["edits"] = None
    with pytest.raises(InputError, match=r"nothing in studies.ffhq.edits .*write `edits: \{\}`"):
        check_parameters(params, PIPELINE, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {c: 1}\na: 2\n", "got `a` twice in a section, first in line 1; wanted each"),
        ("a: [1\n", "which is not YAML: while parsing a flow sequence"),
    ],
)
def test_a_file_that_is_not_yaml_is_one_sentence(tmp_path, text, said):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(tmp_path / "params.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_no_option_is_twice_on_a_command_line(cells):
    """An option of two sections would be twice: a list would grow, of others the last would win."""
    for name, (command, _, _) in cells((ROOT / "params.yaml").read_text()).items():
        words = [word for word in command.split() if word.startswith("--")]
        groups = [option for option, _ in itertools.groupby(words)]  # a list's are side by side
        assert len(groups) == len(set(groups)), name


def test_set_params_changes_one_value_and_gives_a_default_another(cells):
    """YAML's merge keys would not do: DVC writes merged values back where -S changes any value."""
    from dvc.utils.hydra import apply_overrides

    before = cells((ROOT / "params.yaml").read_text())
    apply_overrides("params.yaml", ["studies.ffhq.sample.train=64", "+studies.ffhq.scs.targets=8"])
    after = cells(Path("params.yaml").read_text())
    assert {name for name in before if before[name] != after[name]} == {
        "sample_latents@ffhq",
        "measure_sampling@ffhq",
    }
    assert "--train 64 " in after["sample_latents@ffhq"][0]
    assert after["measure_sampling@ffhq"][0].endswith(" --targets 8")
    kept = read_yaml(ROOT / "params.yaml")
    kept["studies"]["ffhq"]["sample"]["train"] = 64
    kept["studies"]["ffhq"]["scs"] = {"targets": 8}
    assert read_yaml(Path("params.yaml")) == kept


@pytest.mark.parametrize("command", ["check_params", "reproduce"])
def test_nothing_runs_with_parameters_that_do_not_fit(params, tmp_path, command):
    params["fit_extractor"]["iterationz"] = params["fit_extractor"].pop("iterations")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{command}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "error: got `iterationz` in fit_extractor of params.yaml; wanted an option of "
        "stages.fit_extractor; rename it to `iterations`\n"
    )


def test_a_section_that_may_be_empty_stands_last_in_its_command():
    """Between two options, it would leave two spaces, of which DVC's lock file loses one."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name in ("pixels", "geometry", "scs", "edits", "directions"):
        commands = [one["do"]["cmd"] for one in stages.values() if "do" in one]
        assert [c for c in commands if f"${{item.{name}}}" in c]
        assert all(c.endswith(f"${{item.{name}}}") for c in commands if f"${{item.{name}}}" in c)
