"""A generator's image read from its feature maps: a ridge regression, tested beside controls."""

from pathlib import Path

from pipeline.analysis.options import AppearanceStudy
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Generated, Measured


def fit_appearance(
    samples: Generated,
    images: Path,
    appearance: Path,
    readings: Path,
    measured: Measured,
    *,
    settings: AppearanceStudy,
    machine: Machine,
) -> None:
    """Fit colors on training pixels of several truncations; write the reading, scores, pictures."""
    from pipeline.analysis.appearance import draw_readings, measure_appearance
    from pipeline.data.arrays import write_group
    from pipeline.extractors.networks import save_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import sha256

    source = samples.source(machine)
    some = source, str(images), settings
    (found, report), spent = timed(measure_appearance, *some, machine.workers)
    pictures = draw_readings(source, str(images), found, settings)
    facts = report["fit"] | {"name": "appearance", "generator": sha256(samples.checkpoint)[:16]}
    save_extractor(appearance, found, facts)
    write_group(readings, {**pictures}, {"truncations": list(settings.fit.psis)})
    measured.write(report, {"fit and test": spent})


if __name__ == "__main__":
    run(fit_appearance)
