"""The study of linear appearance: what is measured, its tables and its figure."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys

from pipeline.analysis.appearance import Errors, draw_readings, measure_appearance
from pipeline.analysis.options import AppearanceStudy
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.extractors.appearance import COLORS, fit_appearance, synthesize
from pipeline.extractors.networks import LSE
from pipeline.extractors.options import AppearanceFit
from pipeline.generators.registry import load_generator
from pipeline.reporting import appearance as report
from pipeline.reporting.tables import fold, markdown
from stages.fit_appearance import fit_appearance as stage

PSI = 0.7  # of the toys' latents
FIT = AppearanceFit(8, 5, 32, 2, psis=(PSI, 1.0), strengths=(0.01, 1e-4))
SETTINGS = AppearanceStudy(FIT, test_samples=3, shown=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("appearance")
    checkpoint = toys.write_generator(folder / "generator.safetensors", "mobile_stylegan")
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint)
    generator, arrays = load_generator(checkpoint), {}
    for split in toys.SIZES:
        ws = torch.from_numpy(Group(latents).read(split, "ws"))
        arrays[f"{split}/images"] = to_uint8(generator.synthesis(ws), 32)
    write_group(folder / "images.zarr.zip", arrays, {})
    return Source(str(checkpoint), str(latents)), str(folder / "images.zarr.zip")


@pytest.fixture(scope="module")
def measured(study):
    return measure_appearance(*study, SETTINGS, num_workers=1)


def test_errors_give_r2_and_psnr_over_all_pixels():
    rng = np.random.default_rng(0)
    colors = rng.normal(size=(6, 50, 3)) + np.arange(3)
    found = colors + 0.1 * rng.normal(size=colors.shape)
    squares = np.square(found - colors).sum((1, 2))
    errors = Errors()
    for rows in (slice(0, 2), slice(2, 6)):
        errors.add(np.stack([squares[rows], 1e-9 * squares[rows]], 1), colors[rows])
    flat, spread = colors.reshape(-1, 3), 0.0
    for color in flat.T:
        spread += np.square(color - color.mean()).sum()
    scores = errors.scores(0)
    assert scores["r2"]["mean"] == pytest.approx(1 - squares.sum() / spread, abs=1e-4)
    assert scores["r2"]["low"] < scores["r2"]["mean"] < scores["r2"]["high"]
    decibels = 10 * np.log10(4 / np.square(found - colors).mean())
    assert scores["psnr"] == pytest.approx(decibels, abs=0.01)
    assert errors.scores(1)["r2"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_the_saved_reading_is_that_of_the_limit(study, measured):
    """The same rule as `fit_appearance`, and the row of its limit scores this very extractor."""
    extractor, facts = measured
    alone, its = fit_appearance(*study, FIT, num_workers=1)
    for name, value in alone.tensors().items():
        torch.testing.assert_close(extractor.tensors()[name], value, rtol=1e-3, atol=1e-4)
    assert facts["fit"]["strength"] == its["strength"]
    source, images = study
    errors = Errors()
    for row in range(3):
        maps, image = synthesize(source, extractor.taps, "test", row, 1.0, images, 8)
        squares = (extractor.logits(maps, 8)[0] - image).square()
        # All 64 pixels here, 32 of them there.
        errors.add(squares.sum().view(1, 1).numpy(), image.flatten(1).T[None].numpy())
    r2 = facts["limits"]["8"]["1.0"]["r2"]["mean"]
    assert errors.scores(0)["r2"]["mean"] == pytest.approx(r2, abs=0.1)


def test_every_limit_tap_and_control_is_tested_at_each_truncation(study, measured):
    source, _ = study
    _, facts = measured
    taps = [tap for tap in source.generator().taps if tap.resolution <= 16]
    assert list(facts["limits"]) == ["4", "8", "16"]
    assert list(facts["alone"]) == [tap.name for tap in taps]
    assert list(facts["controls"]) == ["coordinates", "reinitialized"]
    for group in ("limits", "alone", "controls"):
        for cell in facts[group].values():
            assert {str(PSI), "1.0"} < cell.keys() and cell["1.0"]["samples"] == 3
    assert facts["limits"]["8"]["channels"] == sum(t.channels for t in taps if t.resolution <= 8)
    assert facts["alone"]["4px"]["channels"] == taps[0].channels


def test_controls_do_not_read_the_trained_taps(study, measured, monkeypatch):
    """With the images planted as a reading of the taps, they alone explain them."""
    source, images = study
    taps = [tap for tap in source.generator().taps if tap.resolution <= 8]
    planted = LSE(COLORS, taps, bias=True)
    rng = torch.Generator().manual_seed(0)
    channels = sum(tap.channels for tap in taps)
    planted.set_matrix(torch.randn(channels, 3, generator=rng))
    planted.requires_grad_(False)

    def colored(source, taps, split, row, psi, images, size):
        features, found = synthesize(source, taps, split, row, psi, images, size)
        return features, None if found is None else planted.logits(features, size)[0]

    monkeypatch.setattr("pipeline.extractors.appearance.synthesize", colored)
    loose = replace(SETTINGS, fit=replace(FIT, strengths=(1e-3, 1e-5)))
    _, facts = measure_appearance(source, images, loose, num_workers=1)
    best = facts["limits"]["8"]["1.0"]["r2"]["mean"]
    assert best > 0.95
    for psi in (str(PSI), "1.0"):
        controls = [cell[psi]["r2"]["mean"] for cell in facts["controls"].values()]
        assert max(controls) < facts["limits"]["8"][psi]["r2"]["mean"] - 0.005, controls


def test_tables_figure_and_finding(study, measured, tmp_path):
    extractor, facts = measured
    files = {"toy": {"appearance": facts}, "other": {}}
    tables = {name: markdown(fold(table)) for name, _, _, table in report.all_tables(files)}
    assert "| toy | taps to 8 px |" in tables["appearance"]
    assert "| toy | re-initialised |" in tables["appearance"]
    assert "R2, psi 0.7" in tables["appearance"] and "low" not in tables["appearance"]
    assert "| toy | 4px |" in tables["appearance_taps"]
    (sentence,) = report.findings(files["toy"])
    assert "taps up to 8 px gives the image at 8 px" in sentence and "at psi 0.7" in sentence
    assert report.findings({}) == []
    pictures = draw_readings(*study, extractor, SETTINGS)
    assert list(pictures) == ["0.7/images", "0.7/readings", "1.0/images", "1.0/readings"]
    assert all(values.shape == (2, 3, 8, 8) for values in pictures.values())
    write_group(tmp_path / "readings.zarr.zip", pictures, {"truncations": [0.7, 1.0]})
    report.draw_readings(tmp_path / "readings.zarr.zip", tmp_path / "appearance.png")
    assert (tmp_path / "appearance.png").stat().st_size > 5_000


def test_the_stage_writes_all(study, tmp_path):
    from pipeline.extractors.appearance import read_appearance
    from pipeline.runtime.files import read_json
    from pipeline.runtime.options import Machine
    from stages.paths import Generated, Measured

    source, images = study
    names = ("a.safetensors", "readings.zarr.zip", "metrics.json", "costs.json")
    paths = [tmp_path / name for name in names]
    machine = Machine("cpu", 1, "float32")
    samples = Generated(source.checkpoint, source.latents)
    written = Measured(*paths[2:])
    stage(samples, images, *paths[:2], written, settings=SETTINGS, machine=machine)
    assert read_appearance(paths[0]).taps[-1].resolution == 8
    assert Group(paths[1]).attributes["truncations"] == [PSI, 1.0]
    assert read_json(paths[2])["fit"]["limit"] == 8
    assert read_json(paths[3])["fit and test"]["cpu_seconds"] > 0
