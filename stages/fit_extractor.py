"""Features and masks become a fitted extractor; L2 is chosen on the validation split."""

from pathlib import Path

from stages import run


def fit_extractor(
    features: Path,
    masks: Path,
    pixels: Path,
    extractor: Path,
    metrics: Path,
    *,
    name: str,
    solver: str,
    l2: list[float],
    iterations: int,
    pixel_budget: int,
    epochs: float,
    device: str,
) -> None:
    """Fit the extractor called `name`: lbfgs on sampled pixels of all taps, or the paper's Adam.

    Adam reads whole images of the cached taps and knows no L2, no bias and no finer taps.
    """
    from pipeline.devices import pick_device
    from pipeline.errors import choose
    from pipeline.extractors import save_extractor, variant
    from pipeline.files import write_json
    from pipeline.fitting import SOLVERS, fit_cached, fit_lse
    from pipeline.stores import open_store

    variant(name)
    where, store = pick_device(device), open_store(pixels)
    if choose("solver", solver, SOLVERS) == "adam":
        fitted, report = fit_cached(open_store(features), str(masks), store, name, epochs, where)
    else:
        fitted, report = fit_lse(store, name, l2, iterations, pixel_budget, where, str(masks))
    save_extractor(extractor, fitted, {"name": name, "pixels": store.plan.fingerprint})
    write_json(metrics, report)


if __name__ == "__main__":
    run(fit_extractor)
