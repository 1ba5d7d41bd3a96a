"""Your own edit of one sample, by a row of its split or a seed: semantic editing as a tool."""

from pathlib import Path

from pipeline.editing.options import Start
from pipeline.editing.semantic.options import Rule
from pipeline.runtime.options import Synthesis
from stages import run


def edit_semantics(
    checkpoint: Path,
    teacher: Path,
    *,
    edit: Path,
    out: Path,
    start: Start,
    rule: Rule,
    machine: Synthesis,
    extractor: Path | None = None,  # fitted LSE; none: SIE with the teacher in the loop
    loop_tap_resolution: int | None = None,  # taps up to this many px take part; none: all
    judge: Path | None = None,  # weights of a judge; none: scores by the teacher alone
    labels: str = "celebamask15",
    label_size: int = 256,  # side of images and masks, px
) -> None:
    """Write the pictures, the vector and the scores of one edit of one sample."""
    from pipeline.editing.semantic.cases import Setup, pick_z
    from pipeline.editing.semantic.files import read_edit
    from pipeline.editing.semantic.study import edit_one, write_one
    from pipeline.runtime.devices import pick_compute, pick_device

    wanted = read_edit(edit)  # before any network
    where = pick_device(machine.device)
    setup = Setup(
        checkpoint=str(checkpoint),
        teacher=str(teacher),
        judge=str(judge) if judge else None,
        label_size=label_size,
        extractors={"extractor": str(extractor)} if extractor else {},
        loop_tap_resolution=loop_tap_resolution,
        rule=rule,
        labels=labels,
        compute=pick_compute(machine.compute, where),
        device=where,
    )
    z = pick_z(setup, start)
    case, outcome, scores = edit_one(setup, wanted, z)
    write_one(out, setup, case, outcome, scores)


if __name__ == "__main__":
    run(edit_semantics)
