"""Hypercolumns become a fitted extractor; L2 is chosen on the validation split."""

from pathlib import Path

from stages import run


def fit_extractor(
    pixels: Path,
    extractor: Path,
    metrics: Path,
    *,
    name: str,
    l2: list[float],
    iterations: int,
    pixel_budget: int,
    device: str,
) -> None:
    """Fit the extractor called `name` (lse, lse_biased, lse_coarse) on a manifest of pixels."""
    import torch

    from pipeline.devices import fast_bfloat16, pick_device
    from pipeline.extractors import save_extractor, variant
    from pipeline.files import write_json
    from pipeline.fitting import fit_lse
    from pipeline.stores import open_store
    from pipeline.taps import Tap

    store, chosen = open_store(pixels), pick_device(device)
    facts = store.plan.facts
    fitted, report = fit_lse(
        store,
        [Tap(**tap) for tap in facts["taps"]],
        facts["resolution"],
        variant(name),
        l2,
        iterations,
        pixel_budget,
        chosen,
        torch.bfloat16 if fast_bfloat16(chosen) else torch.float32,
    )
    save_extractor(extractor, fitted, {"name": name, "pixels": store.plan.fingerprint})
    write_json(metrics, report)


if __name__ == "__main__":
    run(fit_extractor)
