"""The order of stages, the time that they will take, and the file of an earlier run."""

import json

import pytest

from pipeline.runtime.durations import Durations
from pipeline.runtime.errors import InputError
from pipeline.runtime.probe import probe
from pipeline.runtime.schedule import Schedule, by_study, expected, fastest

# A fast study `a` with its first results `view@a`, and a slow one `b` with a long way to the end.
NEEDS = {
    "trace": set(),
    "label@a": {"trace"},
    "view@a": {"label@a"},
    "fit@a": {"label@a"},
    "label@b": {"trace"},
    "view@b": {"label@b"},
    "fit@b": {"label@b"},
    "edit@b": {"fit@b"},
    "tables": {"fit@a", "edit@b"},
}
SECONDS = {"trace": 6, "label@a": 46, "view@a": 6, "fit@a": 30} | {
    "label@b": 60, "view@b": 6, "fit@b": 40, "edit@b": 50, "tables": 6,
}  # fmt: skip


def order(schedule: Schedule) -> list[str]:
    """Stages in the order in which they begin, each taking the time that is expected of it."""
    now, begun = 0.0, [*schedule.start(0)]
    while schedule.running:
        ends = schedule.ends(now)
        soonest = min(schedule.running, key=ends.__getitem__)
        now += ends[soonest]
        schedule.end(soonest)
        begun += schedule.start(now)
    return begun


def test_first_results_come_first_and_then_other_studies_and_the_longest_path():
    assert order(Schedule(NEEDS, SECONDS, [0, 1], "view@a")) == [
        *("trace", "label@a", "view@a"),
        *("label@b", "fit@a", "view@b", "fit@b", "edit@b", "tables"),
    ]


def test_without_first_results_the_longest_path_goes_first():
    assert order(Schedule(NEEDS, SECONDS, [0, 1]))[:3] == ["trace", "label@b", "label@a"]


def test_what_first_results_need_has_all_cores_until_they_are_there():
    schedule = Schedule(NEEDS, SECONDS, [3, 5], "view@a")
    for stage in ("trace", "label@a", "view@a"):
        assert schedule.start(0) == {stage: [3, 5]}
        schedule.end(stage)
    assert schedule.start(0) == {"label@b": [3], "fit@a": [5]}


@pytest.mark.parametrize(
    ("cores", "ends"),
    [
        ([0], {"trace": 6, "label@a": 52, "view@a": 58, "tables": 250}),
        # Six seconds of a stage are as long on two cores as on one. Alone, edit@b has both.
        ([0, 1], {"trace": 6, "label@a": 32, "view@a": 38, "tables": 38 + 60 + 40 + 28 + 6}),
    ],
)
def test_a_schedule_says_when_stages_will_have_ended(cores, ends):
    found = Schedule(NEEDS, SECONDS, cores, "view@a").ends(0)
    assert {*found} == {*NEEDS}
    assert {stage: found[stage] for stage in ends} == pytest.approx(ends)


def test_what_is_left_is_counted_from_now_at_the_pace_seen():
    schedule = Schedule({"a": set(), "b": {"a"}}, {"a": 120, "b": 60}, [0])
    schedule.start(1000)
    assert schedule.ends(1030) == pytest.approx({"a": 90, "b": 150})
    schedule.saw("a", 1000 + 300)  # 180 s more than 120: of 180 s foreseen with the trust, double
    schedule.end("a")
    assert schedule.ends(1300) == pytest.approx({"b": 120})


def test_a_stage_that_takes_longer_than_expected_is_still_to_end():
    schedule = Schedule({"a": set(), "b": {"a"}}, {"a": 10, "b": 60}, [0])
    schedule.start(0)
    assert schedule.ends(500) == pytest.approx({"a": 0, "b": 60})


def test_what_needs_a_failed_stage_never_begins_and_takes_no_time():
    schedule = Schedule(NEEDS, SECONDS, [0, 1], "view@a")
    for stage, failed in (("trace", False), ("label@a", True)):
        schedule.start(0)
        schedule.end(stage, failed)
    assert {*schedule.ends(0)} == {"label@b", "view@b", "fit@b", "edit@b"}
    assert schedule.failed == ["label@a"]


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        ("fit@a", 10),  # its own
        ("fit@c", 20),  # the median of its name
        ("new@a", 25),  # the median of all
    ],
)
def test_a_stage_without_a_duration_has_that_of_others(stage, seconds):
    recorded = {"fit@a": 10, "fit@b": 30, "label@a": 20, "label@b": 80}
    assert expected([stage], recorded) == {stage: seconds}


def test_no_durations_at_all_are_no_error():
    assert expected(["fit@a"], {}).keys() == {"fit@a"}


def test_stages_are_of_the_study_that_their_name_begins_with():
    stages = ["trace", "fit@a-lse", "judge@a", "judge@ab"]
    assert [*by_study(stages).values()] == ["", "a", "a", "ab"]


def test_the_fast_study_is_that_of_the_fewest_seconds():
    assert fastest("view", SECONDS) == "view@a"
    assert fastest("view", SECONDS | {"fit@a": 300}) == "view@b"
    assert fastest("other", SECONDS) == ""


FAST = {"cores": 2, "probe_rate": 100.0, "bfloat16_units": True}
SLOW = FAST | {"probe_rate": 50.0}


def test_durations_are_those_of_the_machine_that_asks():
    known = Durations(FAST, {"fit@a": 10.0})
    assert known.pace(SLOW) == 0.5 and known.on(SLOW) == {"fit@a": 20.0}


def test_a_run_renews_its_own_stages_and_the_others_become_its_machine_s(tmp_path):
    path = tmp_path / "durations.json"
    Durations(FAST, {"fit@a": 10.0, "fit@b": 7.0}, {"fit@a": 1.0}, {"wheel==1": 5.0}).write(path)
    run = Durations(SLOW, {"fit@b": 15.0}, {"fit@b": 2.0})
    Durations.read(path).merged(run).write(path)
    assert json.loads(path.read_text()) == {
        "machine": SLOW,
        "stages": {"fit@a": 20.0, "fit@b": 15.0},
        "disk_mb": {"fit@a": 1.0, "fit@b": 2.0},
        "download_mb": {"wheel==1": 5.0},
    }


def test_no_file_is_no_durations_and_a_damaged_one_is_said(tmp_path):
    path = tmp_path / "durations.json"
    assert Durations.read(path) == Durations()
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Durations.read(path)


def test_the_probe_measures_one_core():
    found = probe()
    assert found["probe_rate"] > 1 and found["bfloat16_units"] in (True, False)
