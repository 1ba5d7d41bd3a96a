"""Features and masks become fitted extractors; the validation split makes every choice."""

from pathlib import Path

from pipeline.extractors.options import LinearFit, Training
from pipeline.runtime.options import Device
from stages import run


def fit_extractor(
    features: Path,
    masks: Path,
    pixels: Path,
    extractors: Path,
    metrics: Path,
    costs: Path,
    *,
    names: list[str],
    linear: LinearFit,
    training: Training,
    machine: Device,
    study: str = "",  # study whose own learning rates are taken
) -> None:
    """Fit the extractors `names`: an LSE by lbfgs on sampled pixels or by the paper's Adam.

    An NSE is trained on windows of the cached taps. Adam knows no L2, no bias and no finer taps.
    Writes `extractors`/NAME.safetensors, `metrics`/NAME_fit.json and, of all, `costs`.
    """
    from pipeline.data.stores import open_store
    from pipeline.extractors.fitting import SOLVERS, fit_cached, fit_lse, fit_nonlinear, schedule_of
    from pipeline.extractors.networks import Extractor, save_extractor
    from pipeline.extractors.registry import variant
    from pipeline.runtime.costs import timed
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.errors import choose
    from pipeline.runtime.files import write_json

    choose("solver", linear.solver, SOLVERS)
    nonlinear = {name: variant(name).nonlinear for name in names}
    where, store = pick_device(machine.device), open_store(pixels)
    from_pixels = linear.solver == "lbfgs"
    maps = open_store(features) if any(nonlinear.values()) or not from_pixels else None

    def fit(name: str) -> tuple[Extractor, dict]:
        if not nonlinear[name] and from_pixels:
            return fit_lse(
                store,
                name,
                linear.l2,
                linear.iterations,
                linear.pixel_budget,
                where,
                str(masks),
            )
        if not nonlinear[name]:
            return fit_cached(maps, str(masks), store, name, linear.epochs, where)
        schedule = schedule_of(name, training, study)
        return fit_nonlinear(maps, str(masks), store, name, training.nse2_width, schedule, where)

    spent = {}
    for name in nonlinear:
        (fitted, report), spent[name] = timed(fit, name)
        facts = {"name": name, "pixels": store.plan.fingerprint}
        save_extractor(extractors / f"{name}.safetensors", fitted, facts)
        write_json(metrics / f"{name}_fit.json", report)
    write_json(costs, spent)


if __name__ == "__main__":
    run(fit_extractor)
