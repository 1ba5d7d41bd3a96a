"""Features and masks become fitted extractors; the validation split makes every choice."""

from pathlib import Path

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
    solver: str,
    l2: list[float],
    iterations: int,
    pixel_budget: int,
    epochs: float,
    nse2_width: int,
    learning_rates: list[str],
    steps: int,
    batch: int,
    window: int,
    looks: int,
    patience: int,
    device: str,
    study: str = "",  # whose learning rates to take
) -> None:
    """Fit the extractors `names`: an LSE by lbfgs on sampled pixels or by the paper's Adam.

    An NSE is trained on windows of the cached taps. Adam knows no L2, no bias and no finer taps.
    Writes `extractors`/NAME.safetensors, `metrics`/NAME_fit.json and, of all, `costs`.
    """
    from pipeline.data.stores import open_store
    from pipeline.extractors.fitting import SOLVERS, fit_cached, fit_lse, fit_nonlinear
    from pipeline.extractors.networks import save_extractor
    from pipeline.extractors.registry import variant
    from pipeline.extractors.training import Schedule, rate_of
    from pipeline.runtime.costs import timed
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.errors import choose
    from pipeline.runtime.files import write_json

    choose("solver", solver, SOLVERS)
    forms = {name: variant(name) for name in names}
    where, store = pick_device(device), open_store(pixels)
    spent = {}
    for name, form in forms.items():
        if not form.nonlinear and solver == "lbfgs":
            fit, words = fit_lse, (store, name, l2, iterations, pixel_budget, where, str(masks))
        elif not form.nonlinear:
            cached = open_store(features)
            fit, words = fit_cached, (cached, str(masks), store, name, epochs, where)
        else:
            cached, rate = open_store(features), rate_of(name, learning_rates, study)
            plan = Schedule(steps, batch, window, rate, looks, patience)
            fit = fit_nonlinear
            words = (cached, str(masks), store, name, nse2_width, plan, where)
        (fitted, report), spent[name] = timed(fit, *words)
        facts = {"name": name, "pixels": store.plan.fingerprint}
        save_extractor(extractors / f"{name}.safetensors", fitted, facts)
        write_json(metrics / f"{name}_fit.json", report)
    write_json(costs, spent)


if __name__ == "__main__":
    run(fit_extractor)
