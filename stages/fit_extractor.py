"""Features and masks become fitted extractors; the validation split makes every choice."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.extractors.options import LinearFit, Training
from pipeline.runtime.options import Device
from stages import run
from stages.paths import Measured


@dataclass(frozen=True)
class Cached:
    """What extractors are fitted on."""

    features: Path
    masks: Path
    pixels: Path


def fit_extractor(
    cached: Cached,
    extractors: Path,
    measured: Measured,
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
    from pipeline.extractors.fitting import Stored, fit, needs_maps
    from pipeline.extractors.networks import save_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.files import write_json

    whole, device = needs_maps(names, linear), pick_device(machine.device)
    pixels, maps = open_store(cached.pixels), open_store(cached.features) if whole else None
    stored = Stored(pixels, maps, str(cached.masks), device, study)
    spent = {}
    for name in dict.fromkeys(names):
        (fitted, report), spent[name] = timed(fit, name, stored, linear, training)
        facts = {"name": name, "pixels": pixels.plan.fingerprint}
        save_extractor(extractors / f"{name}.safetensors", fitted, facts)
        write_json(measured.metrics / f"{name}_fit.json", report)
    write_json(measured.costs, spent)


if __name__ == "__main__":
    run(fit_extractor)
