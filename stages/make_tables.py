"""Result JSON becomes the paper's tables, each beside the paper's numbers where it has some."""

from pathlib import Path

from stages import run

TWO_PROTOCOLS = """mIoU in %, on test samples that no fit has seen. `miou_per_image` is eq (4) of
the paper, `miou_dataset` one confusion matrix over all pixels; both leave class 0 out. In
parentheses: 95 % bootstrap interval over images. A dash: does not apply, or the class occurs in no
image."""

TABLE_1 = f"""{TWO_PROTOCOLS} "% of best NSE": relative difference to the best of the NSEs, with the
interval of the paired difference. "vs judge": under a second network of another architecture and
seed; the row "teacher" is the teacher's own masks there, the ceiling of every extractor trained on
them. The LSE reads all taps; NSEs read the cached ones (see the facts of each fit). Controls: the
LSE's classifier on other features. The paper's StyleGAN2-FFHQ, another generator, another teacher,
10,000 test samples: LSE 79.7, NSE-1 81.0, NSE-2 80.2 (its table 6 averages to 76.4, 79.3, 78.6)."""

TABLE_2 = f"""{TWO_PROTOCOLS} Mean over repeats on disjoint draws from the pool, standard deviation
(± sd) and largest deviation from the mean (what the paper prints as ±); "% of full": of the LSE
fitted on the whole training split. The paper's column: StyleGAN2-FFHQ, table 2."""

STROKES = f"""{TWO_PROTOCOLS} Strokes are simulated from the teacher's masks: segments inside each
class, pixels shared out by the square root of its area. Equal numbers of labeled pixels compare."""

SELECTION = f"""{TWO_PROTOCOLS} A repeat gives each strategy the same random half of the pool; no
strategy sees a mask before it has picked the sample. diverse: k-center on mean features; uncertain:
highest entropy of the extractor fitted so far; committee: largest Jensen-Shannon divergence among
three that each leave a third of the annotated samples out (mean of the top 10 % of pixels, after
DatasetGAN, Zhang et al., CVPR 2021). gain: paired difference to random over repeats, with its 95 %
t interval."""

CLASSES = """IoU per class in %, protocol of `miou_per_image`, mean over repeats with full masks. A
class that the drawn samples do not show cannot be learned from them."""

TABLE_4 = f"""{TWO_PROTOCOLS} Both lists averaged over the finally selected classes, as in the
paper, whose table 4 has scenes only. Classes that no extractor predicts above the threshold on the
full list are dropped, and everything is fitted again on the rest. Fits take the few steps of
`selection_fit` here: read them for the classes they find, not against table 1."""

TABLE_5 = """IoU per class in %, protocol of `miou_per_image`. A dropped class has no score on the
selected list; a dash on both: it occurs in no test image."""

TABLE_6 = """IoU per class in %, protocol of `miou_per_image`, beside the paper's table 6 for
StyleGAN2-FFHQ (another generator and teacher)."""


def make_tables(results: Path, tables: Path) -> None:
    """Write the tables of all studies' results as Markdown and CSV."""
    from pipeline.reporting import directions, editing, geometry, sampling, style
    from pipeline.reporting import fewshot as few
    from pipeline.reporting import tables as make

    found = make.read_metrics(results)
    write = make.write_table
    write(make.extractor_table(found), tables / "table1", "Table 1: extractors", TABLE_1)
    write(few.shots_table(found), tables / "table2", "Table 2: few-shot LSE", TABLE_2)
    write(few.strokes_table(found), tables / "fewshot_strokes", "Strokes", STROKES)
    write(few.class_table(found), tables / "fewshot_classes", "Few-shot per class", CLASSES)
    title = "Which samples to annotate"
    write(few.selection_table(found), tables / "fewshot_selection", title, SELECTION)
    write(make.selection_table(found), tables / "table4", "Table 4: label lists", TABLE_4)
    for part in (geometry, sampling, editing, style, directions):
        for name, title, note, table in part.all_tables(found):
            write(table, tables / name, title, note)
    for study in found:
        table = make.selected_class_table(found, study)
        write(table, tables / f"table5_{study}", f"Table 5: label lists, {study}", TABLE_5)
        table = make.face_class_table(found, study)
        write(table, tables / f"table6_{study}", f"Table 6: IoU per class, {study}", TABLE_6)
        title = f"IoU per class against teacher and judge, {study}"
        write(make.class_table(found, study), tables / f"classes_{study}", title, TWO_PROTOCOLS)


if __name__ == "__main__":
    run(make_tables)
