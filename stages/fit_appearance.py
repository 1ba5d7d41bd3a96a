"""A generator's image read from its feature maps: a ridge regression, tested beside controls."""

from pathlib import Path

from pipeline.analysis.options import AppearanceStudy
from pipeline.runtime.options import Machine
from stages import run


def fit_appearance(
    checkpoint: Path,
    latents: Path,
    images: Path,
    appearance: Path,
    readings: Path,
    metrics: Path,
    costs: Path,
    *,
    settings: AppearanceStudy,
    machine: Machine,
) -> None:
    """Fit colors on training pixels of several truncations; write the reading, scores, pictures."""
    from pipeline.analysis.appearance import draw_readings, measure_appearance
    from pipeline.data.arrays import write_group
    from pipeline.data.features import open_source
    from pipeline.extractors.networks import save_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import sha256, write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    some = source, str(images), settings
    (found, report), spent = timed(measure_appearance, *some, machine.workers)
    pictures = draw_readings(source, str(images), found, settings)
    facts = report["fit"] | {"name": "appearance", "generator": sha256(checkpoint)[:16]}
    save_extractor(appearance, found, facts)
    write_group(readings, {**pictures}, {"truncations": list(settings.fit.psis)})
    write_json(metrics, report)
    write_json(costs, {"fit and test": spent})


if __name__ == "__main__":
    run(fit_appearance)
