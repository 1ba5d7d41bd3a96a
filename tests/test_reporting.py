import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.analysis.fewshot.strategies import SELECTIONS
from pipeline.data.arrays import write_group
from pipeline.reporting import (
    editing,
    fewshot,
    findings,
    pages,
    paper,
    sampling,
    tables,
    views,
)
from pipeline.reporting.contents import SECTIONS
from pipeline.reporting.curves import Line, Panel, confusion_figure, line_figure
from pipeline.reporting.figures import mask_figure
from pipeline.reporting.headline import headline, share
from pipeline.reporting.palette import COLORS, colorize
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from stages.make_tables import make_tables


def score(mean, **per_class):
    one = {"mean": mean, "low": mean - 1, "high": mean + 2, "per_class": per_class}
    other = {"mean": mean + 5, "low": mean + 4, "high": mean + 6, "per_class": per_class}
    return {"images": 3, "miou_per_image": one, "miou_dataset": other}


def evaluation(mean, **per_class):
    return {
        "against_teacher": score(mean, **per_class),
        "against_judge": score(mean - 10, **per_class),
    }


@pytest.fixture
def folder(tmp_path):
    """The metrics of a study whose category selection drops the hat."""
    spread = {"points": -1.0, "relative": -2.0, "relative_low": -3.0, "relative_high": -0.5}
    nothing = dict.fromkeys(spread, 0.0)
    comparison = {
        protocol: {"best": "nse1", "minus_best": {"lse": spread, "nse1": nothing}}
        for protocol in tables.PROTOCOLS
    }
    files = {
        "nse1": evaluation(82.0, bg=99.0, skin=90.0, hat=None),
        "lse": evaluation(80.0, bg=98.0, skin=88.0, hat=None),
        "lse_fit": {
            "parameters": 60,
            "validation_curve": [
                {"iteration": 5, "miou": {"0.01": 40.0, "0.001": 50.0}},
                {"iteration": 10, "miou": {"0.01": 60.0, "0.001": 55.0}},
            ],
        },
        "nse1_fit": {
            "parameters": 900,
            "training_curve": [{"passes": 1, "miou": 30.0}, {"passes": 4, "miou": 62.0}],
        },
        "ceiling": score(85.0, bg=99.0, skin=95.0, hat=None),
        "comparison": comparison,
        "selection": {"kept": ["skin", "hair"], "dropped": ["hat"], "threshold": 10},
        "full/lse": evaluation(50.0, bg=98.0, skin=80.0, hair=60.0, hat=1.0),
        "selected/lse": evaluation(75.0, bg=98.0, skin=82.0, hair=70.0),
    }
    for name, value in files.items():
        path = tmp_path / "ffhq" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return tmp_path


@pytest.fixture
def metrics(folder):
    return tables.read_metrics(folder)


def test_table_1_has_a_row_an_extractor_and_the_ceiling(metrics):
    table = tables.extractor_table(metrics).set_index("masks from")
    assert list(table.index) == ["LSE", "NSE-1", "teacher"], "the order of the table, not of names"
    lse = table.loc["LSE"]
    assert (lse["miou_per_image"], lse["miou_per_image low"], lse["miou_per_image high"]) == (
        *(80.0, 79.0, 82.0),
    )
    assert lse["miou_dataset"] == 85.0 and lse["miou_dataset vs judge"] == 75.0
    assert lse["% of best NSE, miou_dataset"] == -2.0
    assert lse["parameters"] == 60 and table.loc["NSE-1", "parameters"] == 900
    assert table.loc["teacher", "miou_dataset vs judge"] == 90.0
    assert pd.isna(table.loc["teacher", "miou_dataset"]), "against itself it says nothing"


def test_table_4_averages_both_lists_over_the_kept_classes(metrics):
    table = tables.selection_table(metrics).set_index(["labels", "masks from"])
    assert table.loc[("full", "LSE"), "miou_per_image"] == 70.0, "the dropped hat does not count"
    assert table.loc[("selected", "LSE"), "miou_dataset"] == 76.0


def few(**iou):
    value = {"mean": 40.0, "standard_deviation": 1.0, "maximum_deviation": 2.0, "of_full_lse": 50.0}
    counts = {"repeats": 2, "labeled_pixels": 9}
    return dict.fromkeys(tables.PROTOCOLS, value) | counts | {"iou_per_image": iou}


def test_a_few_shots_are_told_apart_by_class():
    files = {
        "lse": evaluation(80.0, bg=98.0, skin=88.0, hat=72.0),
        fewshot.SWEEP: {"full": {"16": few(skin=80.0, hat=2.0), "4": few(skin=60.0, hat=1.0)}},
    }
    table = fewshot.class_table({"ffhq": files}).set_index("class")
    assert list(table.columns) == ["study", "4 shots", "16 shots", "full LSE"], "by number"
    assert table.loc["hat"].tolist() == ["ffhq", 1.0, 2.0, 72.0]
    # The hat's gap is 70 of 78, over two classes; without it 80 of 88.
    (said,) = findings.to_full_lse(files)
    assert said.startswith("with 16 annotated samples, the LSE loses most on hat")
    assert "35.0 of the 39.0 points" in said and "90.9 %" in said


def test_every_strategy_appears_in_tables_lines_and_findings():
    """JSON sorts strategies by name; a reader wants them in the order of what they cost."""
    gain = {p: {"mean": 3.0, "plus_minus": 1.0} for p in tables.PROTOCOLS}
    by_name = {name: {"4": few() | {"gain": gain}} for name in sorted([*SELECTIONS, "new"])}
    by_name["random"] = {"4": few()}
    assert set(fewshot.STRATEGIES) == set(SELECTIONS)
    sweep = {"full": {"4": few(skin=50.0, hat=1.0)}, "selection": by_name}
    files = {"lse": evaluation(80.0, skin=88.0, hat=72.0), fewshot.SWEEP: sweep}
    order = ["random", "diverse", "uncertain", "committee", "new"]
    table = fewshot.selection_table({"ffhq": files})
    assert table["selection"].tolist() == order
    assert table.set_index("selection").loc["committee", "gain, miou_dataset low"] == 2.0
    assert list(fewshot.panels(files)[-1].lines) == order
    said = findings.to_random_samples(files)
    assert [line.split("`")[1] for line in said] == order[1:]
    assert all("by +3.0 ± 1.0 points with 4 samples" in line for line in said)
    assert all(line.endswith("this helps with 4 samples.") for line in said)


def test_table_5_marks_what_was_dropped(metrics):
    table = tables.selected_class_table(metrics, "ffhq").set_index("class")
    assert dict(table["kept"]) == {"skin": "yes", "hair": "yes", "hat": "no"}
    assert table.loc["hat", "LSE, full"] == 1.0 and pd.isna(table.loc["hat", "LSE, selected"])


def test_table_6_stands_beside_the_paper(metrics):
    table = tables.face_class_table(metrics, "ffhq").set_index("class")
    assert table.loc["skin", "paper's LSE"] == 95.9 and table.loc["skin", "LSE"] == 88.0
    assert table.loc["mean", "NSE-1"] == 82.0
    for name, mean in paper.MIOU_OF_TABLE_6.items():
        assert table.loc["mean", f"paper's {name}"] == pytest.approx(mean, abs=0.05)


def test_markdown_folds_intervals_and_dashes_what_is_missing(tmp_path, metrics):
    tables.write_table(tables.extractor_table(metrics), tmp_path / "t", "Title", "Note.")
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("\nNote.\n")
    assert "80.0 (79.0 to 82.0)" in text and "low" not in text
    assert re.search(r"\| ffhq \| teacher \| – \| – \|", text)
    numbers = pd.read_csv(tmp_path / "t.csv")
    assert numbers["miou_per_image low"].iloc[0] == 79.0, "programs get numbers"


def interval(mean, reach=1.0):
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def agreed(before, after, **over):
    last = {"agreement_eq7": interval(after), "agreement_class_mean": {"mean": after - 5}}
    if over:
        last["over_refits"] = {"agreement_eq7": over}
    return {"before": {"agreement_eq7": interval(before)}, "last": last}


def by_network(lead):
    """Scores of one network that labels; `lead` is what it adds to every agreement after."""
    spread = {"standard_deviation": 2.0, "maximum_deviation": 3.0}
    after = {"fewshot_16": 50.0, "fewshot_4": 45.0, "lse": 60.0, "teacher": 40.0}
    scores = {m: agreed(30.0, v + lead, **spread) for m, v in after.items()}
    scores["lse"] = agreed(30.0, 60.0 + lead)
    gains = {m: interval(v + lead - 30.0) for m, v in after.items()}
    leads = {m: interval(v - 40.0, 15.0) for m, v in after.items() if m != "teacher"}
    return scores | {"after_minus_before": gains, "minus_teacher": leads}


@pytest.fixture
def sampled():
    """Scores as measure_sampling writes them, keys sorted as JSON has them."""
    diverse = {"before": 9.0, "best": 8.0, "last": 7.0}
    course = {"0": 30.0, "10": 31.0, "5": 32.0}
    rates = {rate: dict.fromkeys(sampling.WHO, course) for rate in ("0.001", "0.1", "0.01")}
    return {
        "targets": 4,
        "samples": 3,
        "teacher_samples": 1,
        "by_learning_rate": rates,
        "diversity_cielab": dict.fromkeys(("fewshot_16", "fewshot_4", "lse", "teacher"), diverse),
        "masks_by_judge": by_network(0.0),
        "masks_by_teacher": by_network(7.0),
    }


def test_table_3_has_the_judge_and_the_teacher_apart_and_stands_beside_the_paper(sampled):
    found = {"other": {}, "ffhq": {sampling.SAMPLING: sampled}}
    table = sampling.agreement_table(found).set_index("method")
    order = ["teacher in the loop", "few-shot LSE, 4 shots", "few-shot LSE, 16 shots", "full LSE"]
    assert list(table.index) == order, "shots by number, not by name"
    few = table.loc["few-shot LSE, 16 shots"]
    assert (few["targets"], few["samples"]) == (4, 3)
    assert (few["judge, before"], few["judge, after"], few["teacher, after"]) == (30.0, 50.0, 57.0)
    assert (few["judge, after low"], few["judge, after high"]) == (49.0, 51.0)
    assert (few["judge, ± sd"], few["judge, max. dev."]) == (2.0, 3.0)
    assert few["judge, class mean"] == 45.0
    assert (few["diversity, before"], few["diversity, after"]) == (9.0, 7.0)
    # The paper's table 3: 16 shots 40.0 ± 0.2, 4 shots 39.1, the teacher in the loop 34.3.
    assert table["paper, FFHQ"].tolist()[:3] == [34.3, 39.1, 40.0]
    assert few["paper max. dev."] == 0.2
    assert table.loc["teacher in the loop", "samples"] == 1
    assert table.loc["full LSE", ["judge, max. dev.", "paper, FFHQ"]].isna().all()


def test_differences_of_agreement_leave_the_teacher_minus_itself_out(sampled):
    table = sampling.differences_table({"ffhq": {sampling.SAMPLING: sampled}})
    assert len(table) == 4 + 3
    row = table.set_index(["difference", "method"]).loc[("after minus before", "full LSE")]
    assert (row["judge"], row["judge low"], row["teacher"]) == (30.0, 29.0, 37.0)
    rest = table[table["difference"] == "minus teacher in the loop"]
    assert rest["judge"].tolist() == [5.0, 10.0, 20.0]


def test_rates_and_steps_come_by_number(sampled):
    files = {sampling.SAMPLING: sampled}
    table = sampling.rates_table({"ffhq": files})
    assert list(table.columns[3:]) == ["0 steps", "5 steps", "10 steps"]
    assert list(dict.fromkeys(table["learning rate"])) == ["0.001", "0.01", "0.1"]
    assert set(table["masks by"]) == {"judge", "teacher", "the LSE itself"}
    for panel in sampling.panels(files):
        assert list(panel.lines)[-1] == "learning rate 0.1"
        assert panel.lines["learning rate 0.1"].y == [30.0, 32.0, 31.0]
    assert sampling.panels({}) == [], "a study without samples has no figure"


def edit_scores(region, **more):
    one = {"iou_region_judge": region, "lab_outside": 8.0, "success": 0.25} | more
    scores = {k: {"mean": v, "low": v - 0.25, "high": v + 0.25} for k, v in one.items()}
    return {"count": 3} | scores


@pytest.fixture
def edited():
    """Scores as measure_editing writes them; IoU and rates are fractions."""
    difference = edit_scores(0.125)
    del difference["count"]
    return {
        "unedited": {"none": edit_scores(0.0)},
        "edited": {
            "color": edit_scores(0.25),
            "fewshot": edit_scores(0.625),
            "teacher": edit_scores(0.5),
        },
        "transferred": {"teacher": edit_scores(0.375)},
        "paired": {"fewshot - teacher": difference},
        "by_edit": {"add_hat": {"fewshot": 0.5, "none": 0.0, "teacher": 0.25}},
        "samples": {"add_hat": {"tried": 9, "found": 2}},
    }


def test_edits_are_in_percent_and_start_from_the_unedited(edited):
    metrics = {"ffhq": {editing.EDITING: edited}, "other": {}}
    table = editing.edits_table(metrics).set_index("method")
    assert list(table.index) == ["unedited", "color", "teacher", "few-shot LSE"]
    few = table.loc["few-shot LSE"]
    assert (few["edits"], few["region IoU, judge"], few["success, %"]) == (3, 62.5, 25.0)
    assert (few["region IoU, judge low"], few["region IoU, judge high"]) == (37.5, 87.5)
    assert few["CIELAB change outside"] == 8.0, "no percent"
    assert editing.transfer_table(metrics)["region IoU, judge"].tolist() == [37.5]
    (row,) = editing.differences_table(metrics).to_dict("records")
    assert (row["method"], row["region IoU, judge"]) == ("few-shot LSE minus teacher", 12.5)
    (row,) = editing.kinds_table(metrics).to_dict("records")
    kinds = {"study": "ffhq", "edit": "add hat", "samples": 2}
    assert row == kinds | {"unedited": 0.0, "teacher": 25.0, "few-shot LSE": 50.0}


def test_findings_quote_the_judge_and_say_when_nothing_can_be_told(sampled, edited):
    (said,) = findings.to_sampling({"sampling": sampled})
    assert "the LSE of 16 annotated samples" in said and "4 target masks" in said
    assert "from 30.0 % to 50.0 % (49.0 to 51.0)" in said
    assert "+10.0 (-5.0 to +25.0) points, no difference can be told" in said
    (edits,) = findings.to_editing({"editing": edited})
    assert "3 semantic edits" in edits and "few-shot LSE 62.5" in edits
    assert "few-shot LSE +12.5 (-12.5 to +37.5), no difference can be told" in edits
    sampled["masks_by_judge"]["minus_teacher"]["fewshot_16"] = interval(10.0, 2.0)
    assert "no difference" not in findings.to_sampling({"sampling": sampled})[0]


def nested(*losses):
    """Sets of 1, 2, ... taps that lose so many points, to so many."""
    sets = [
        {"taps": ["t"] * (i + 1), "minus_all": {"miou_dataset": dict(zip(ENDS, loss, strict=True))}}
        for i, loss in enumerate(losses)
    ]
    return {"geometry": {"nested": sets, "all": {"taps": ["t"] * 9}}}


ENDS = ("low", "mean", "high")


@pytest.mark.parametrize(
    ("l2", "said"), [(0.1, "the largest of the"), (0.01, ""), (0.001, "the smallest of the")]
)
def test_an_l2_at_an_end_of_its_candidates_is_said(l2, said):
    found = findings.l2_at_an_end({"lse_fit": {"l2": l2, "l2_candidates": [0.1, 0.01, 0.001]}})
    assert len(found) == bool(said) and all(said in line for line in found)


@pytest.mark.parametrize(
    ("losses", "taps", "why"),
    [
        (((-3, -2, -1.5), (-0.9, -0.3, 0.1)), 2, "surely within a point"),
        (((-8, -6, 0.5), (-7, -5, -0.1)), 9, "an interval around 0 is wide, not good"),
        (((-0.9, -0.8, -0.7), (-0.1, 0, 0.1)), 1, "below all taps, but by little"),
    ],
)
def test_enough_taps_are_surely_within_a_point_of_all(losses, taps, why):
    assert headline(nested(*losses), 16)["taps_within_1_point_of_all"] == taps, why


@pytest.mark.parametrize(
    ("mean", "count", "shown"),
    [(0.0, 8, "0"), (0.25, 64, "20"), (0.96, 50, "96"), (0.5, 9999, "50.0")],
)
def test_a_share_of_few_cases_has_few_digits(mean, count, shown):
    assert str(share(mean, count)) == shown


def test_the_page_lists_its_sections_and_tables_in_order_and_links_to_each(metrics, sampled):
    page = pages.results_page({"ffhq": metrics["ffhq"] | {sampling.SAMPLING: sampled}})
    anchors = re.findall(r'^<a id="([^"]+)"></a>$', page, re.MULTILINE)
    assert len(set(anchors)) == len(anchors), "each once"
    linked = re.findall(r"\(#([^)]+)\)", page[: page.index("## Findings")])
    assert linked == anchors, "the contents, in the order of the page"
    numbers = [int(name[5]) for name in anchors if name.startswith("table")]
    assert numbers == sorted(numbers) and {1, 3, 4, 5, 6} == set(numbers)
    assert page.index("(#table1)") < page.index("## Findings") < page.index("### Table 1")
    assert "editing" not in anchors, "a topic without results"
    for section in SECTIONS:
        names = [name for name, *_ in section.tables(metrics)]
        assert section.anchor not in names


def test_only_the_table_of_costs_has_times(folder, tmp_path):
    costs = tmp_path / "costs"
    write_json(costs / "ffhq" / "fit_full.json", {"lse": {"seconds": 3.0, "cpu_seconds": 8.0}})
    shots = {"fits of 2-shot LSEs": {"cpu_seconds": 1.0}}
    write_json(costs / "ffhq" / "sweep_fewshot.json", shots)
    make_tables(folder, costs, tmp_path / "tables")
    timed = [p.name for p in (tmp_path / "tables").glob("*.csv") if "CPU s" in p.read_text()]
    assert timed == ["costs.csv"]
    text = (tmp_path / "tables/costs.md").read_text()
    assert "| ffhq | fit_full | lse | 3 | 8 |" in text
    assert "| ffhq | sweep_fewshot | fits of 2-shot LSEs | – | 1 |" in text
    make_tables(folder, tmp_path / "none", tmp_path / "without")
    assert len((tmp_path / "without/costs.csv").read_text().splitlines()) == 1


def test_no_metrics_are_said(tmp_path):
    with pytest.raises(InputError, match="no results in"):
        tables.read_metrics(tmp_path)


# Views and figures


def test_fits_share_the_axis_of_their_share(folder):
    panel = views.training_panel(tables.read_study(folder / "ffhq"))
    assert list(panel.lines) == ["LSE", "NSE-1"]
    assert list(panel.lines["LSE"].x) == [50.0, 100.0]
    assert list(panel.lines["LSE"].y) == [50.0, 60.0]
    assert list(panel.lines["NSE-1"].x) == [25.0, 100.0]


def test_confusion_shares_are_rows_of_the_target():
    rows = pd.DataFrame({"actual": list("aaab"), "predicted": list("aabb")})
    shares = views.confusion_shares(rows, ["a", "b", "c"])
    np.testing.assert_allclose(shares[:2], [[2 / 3, 1 / 3, 0], [0, 1, 0]])
    assert np.isnan(shares[2]).all()


def test_figures_can_be_read(tmp_path):
    line = Line([1, 10], [2, 3], band=[0.5, 0.5])
    panels = [Panel("t", "x", "y", {"a": line, "b": Line([1, 10], [1, 1], dashed=True)}, True)]
    line_figure(tmp_path / "lines.png", panels)
    confusion_figure(tmp_path / "confusion.png", np.eye(3), ["bg", "skin", "hair"])
    for name in ("lines", "confusion"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert 200 < min(picture.shape[:2]) < 2000
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "something was drawn"


def test_a_mask_is_drawn_in_its_classes_colors_and_in_place(tmp_path):
    """The right half is hair: an exchanged palette or a transposed mask would show."""
    classes = ["bg", "skin", "hair"]
    mask = np.ones((1, 32, 32), np.uint8)
    mask[:, :, 16:] = 2
    path = tmp_path / "masks.png"
    mask_figure(path, np.zeros((1, 3, 32, 32), np.uint8), {"LSE": mask}, classes, ["test 0"])
    picture = np.asarray(Image.open(path).convert("RGB"))
    skin, hair = (np.all(picture == colorize(np.array(i, np.uint8), classes), -1) for i in (1, 2))
    upper = slice(0, int(picture.shape[0] * 0.75))  # without the legend
    assert skin[upper].sum() > 1000 and hair[upper].sum() > 1000
    assert np.nonzero(skin[upper])[1].max() < np.nonzero(hair[upper])[1].min()


def test_classes_of_a_space_have_colors_of_their_own():
    from pipeline.teachers.labels import LABEL_SPACES

    merged = LABEL_SPACES["celebamask15"].classes
    assert len({COLORS[c] for c in merged}) == len(merged)
    assert set(LABEL_SPACES["celebamask19"].classes) <= COLORS.keys()


def test_figure_6_shows_the_first_sample_of_each_target(tmp_path):
    """Samples are of one color each, so a wrong row or an exchanged method would show."""
    colors = {"teacher": 40, "fewshot_4_0": 90, "fewshot_16_0": 120, "fewshot_8_0": 200, "lse": 160}
    targets = np.ones((2, 16, 16), np.uint8)
    targets[1, :, 8:] = 2
    arrays = {"targets/masks": targets}
    for method, first in colors.items():
        levels = np.array([first, first + 5, first + 10, first + 15], np.uint8)  # of 2 x 2 samples
        images = np.zeros((4, 3, 16, 16), np.uint8)
        images[:, 0] = levels[:, None, None]
        arrays[f"{method}/images_last"] = images
        arrays[f"{method}/judge_last"] = targets.repeat(2, 0)
    write_group(tmp_path / "sampled.zarr.zip", arrays, {"classes": ["bg", "skin", "hair"]})
    sampling.draw_study(tmp_path / "sampled.zarr.zip", tmp_path / "figure.png", 6)
    picture = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB"))
    pure = (picture[..., 1] == 0) & (picture[..., 2] == 0)
    levels, counts = np.unique(picture[pure][:, 0], return_counts=True)
    shown = {
        int(level) for level, count in zip(levels, counts, strict=True) if level and count > 5000
    }
    assert shown == {40, 50, 90, 100, 120, 130, 160, 170}, "first samples, fewest and most shots"
    columns = [
        np.nonzero(pure & (picture[..., 0] == level))[1].min() for level in (40, 90, 120, 160)
    ]
    assert columns == sorted(columns), "teacher, few shots by number, the full LSE"


def test_tables_of_what_was_evaluated(tmp_path):
    """A study that ran in part has tables of that part; a folder without JSON is no study."""
    (tmp_path / "empty" / "scores").mkdir(parents=True)
    (tmp_path / "ffhq").mkdir()
    (tmp_path / "ffhq" / "ceiling.json").write_text(json.dumps(score(50.0, bg=90.0, skin=60.0)))
    found = tables.read_metrics(tmp_path)
    assert list(found) == ["ffhq"]
    table = tables.class_table(found, "ffhq")
    assert [c for c in table if "LSE" in c] == [] and any("ceiling" in c for c in table)
