"""Your own edit of one sample, by a row of its split or a seed: semantic editing as a tool."""

from pathlib import Path

from stages import run


def edit_semantics(
    checkpoint: Path,
    teacher: Path,
    *,
    edit: Path,
    out: Path,
    latents: Path | None = None,  # None: z is drawn from `seed`
    split: str = "test",
    row: int = 0,
    seed: int = 0,
    extractor: Path | None = None,  # None: SIE with the teacher in the loop
    loop_tap_resolution: int | None = None,  # None: all taps
    judge: Path | None = None,  # None: scores by the teacher alone
    labels: str = "celebamask15",
    label_size: int = 256,
    space: str = "z_per_layer",
    steps: int = 50,
    learning_rate: float = 0.01,
    near: float = 1e-3,
    prior: float = 1e-3,
    truncation_psi: float = 1.0,
    compute: str = "auto",
    device: str = "auto",
) -> None:
    """Write the pictures, the vector and the scores of one edit of one sample."""
    from pipeline.editing.semantic.cases import Setup, pick_z
    from pipeline.editing.semantic.files import read_edit
    from pipeline.editing.semantic.method import Rule
    from pipeline.editing.semantic.study import edit_one, write_one
    from pipeline.runtime.devices import pick_compute, pick_device

    wanted = read_edit(edit)  # before any network
    where = pick_device(device)
    setup = Setup(
        str(checkpoint),
        str(teacher),
        str(judge) if judge else None,
        label_size,
        {"extractor": str(extractor)} if extractor else {},
        loop_tap_resolution,
        Rule(space, steps, learning_rate, near, prior, truncation_psi),
        labels,
        pick_compute(compute, where),
        where,
    )
    z = pick_z(setup, latents, split, row, seed)
    case, outcome, scores = edit_one(setup, wanted, z)
    write_one(out, setup, case, outcome, scores)


if __name__ == "__main__":
    run(edit_semantics)
