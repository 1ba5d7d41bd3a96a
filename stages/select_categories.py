"""Every extractor's IoU on the full label list becomes the kept classes (appendix E)."""

from pathlib import Path

from pipeline.analysis.options import CategoryRule
from stages import run


def select_categories(
    masks: Path,
    evaluations: Path,
    selection: Path,
    *,
    rule: CategoryRule,
) -> None:
    """Keep every class that any <extractor>.json of `evaluations` has above its threshold."""
    from pipeline.analysis.categories import read_scores, select_categories
    from pipeline.data.arrays import Group
    from pipeline.runtime.files import write_json
    from pipeline.runtime.progress import say

    classes = Group(masks).attributes["classes"]
    scores = read_scores(evaluations, classes[1:], rule.protocol)
    chosen = select_categories(scores, rule.threshold)
    say(f"kept {len(chosen.kept)} classes; dropped {', '.join(chosen.dropped) or 'none'}")
    write_json(
        selection,
        {
            "kept": chosen.kept,
            "dropped": chosen.dropped,
            "best_iou": chosen.best,
            "threshold": rule.threshold,
            "protocol": rule.protocol,
            "extractors": sorted(scores),
        },
    )


if __name__ == "__main__":
    run(select_categories)
