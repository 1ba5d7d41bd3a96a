"""What a checkpoint is, and what a study of it would cost, before any study is made."""

import time
from pathlib import Path
from typing import Any

import torch

from pipeline.data.plans import GIB
from pipeline.generators.latents import sample_z
from pipeline.generators.readers.formats import sniff
from pipeline.generators.registry import Generator, load_generator

PIXELS_PER_SAMPLE = 512  # of the pixel store that costs are given for, as of the study ffhq


def inspect_checkpoint(
    path: str | Path,
    class_idx: int | None,  # of a conditional network
    samples: int,  # of all splits together
    fused: bool | None = None,  # of a GenForce PGGAN of equal widths
) -> dict:
    """Architecture, taps, a trial pass from z to an image, and a study's disk and time."""
    generator = load_generator(path, class_idx=class_idx, fused=fused)
    taps: list[dict[str, Any]] = [
        {
            "name": tap.name,
            "shape": [tap.channels, tap.resolution, tap.resolution],
            "bytes_per_sample": 4 * tap.channels * tap.resolution**2,  # float32
        }
        for tap in generator.taps
    ]
    trial = _trial(generator)
    return {
        "file": str(path),
        "format": sniff(path),
        "family": generator.family,
        "resolution": generator.resolution,
        "z_dim": generator.z_dim,
        "w_dim": generator.w_dim,
        "num_ws": generator.num_ws,
        "mapping_depth": len(getattr(generator, "mlp", ())),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "w_avg_norm": round(float(generator.w_avg.norm()), 4),
        "channels": sum(tap["shape"][0] for tap in taps),
        "bytes_per_sample": sum(tap["bytes_per_sample"] for tap in taps),
        "taps": taps,
        "trial": trial,
        "study": _costs(taps, samples, trial["seconds_per_sample"]),
    }


def _trial(generator: Generator) -> dict:
    """One sample, after one to warm up: is it finite, and how long does it take?"""
    z = torch.from_numpy(sample_z(range(2), generator.z_dim))
    with torch.inference_mode():
        generator.synthesis(generator.mapping(z[:1]))
        start = time.perf_counter()
        image = generator.synthesis(generator.mapping(z[1:]))
    seconds, finite = time.perf_counter() - start, bool(image.isfinite().all())
    values = {"min": image.min(), "max": image.max(), "std": image.std()}
    return {
        "finite": finite,
        "seconds_per_sample": round(seconds, 4),
        "threads": torch.get_num_threads(),
    } | {f"image_{k}": round(float(v), 4) if finite else None for k, v in values.items()}


def _costs(taps: list[dict], samples: int, seconds: float) -> dict:
    """Disk of the stores in int8, GiB (float16 takes twice that), and minutes of a pass."""
    channels = sum(tap["shape"][0] for tap in taps)
    sides = sorted({tap["shape"][1] for tap in taps})
    return {
        "samples": samples,
        "minutes_per_pass": round(samples * seconds / 60, 2),
        "pixels_gib": round(samples * PIXELS_PER_SAMPLE * channels / GIB, 3),
        "features_gib_by_max_tap_resolution": {
            str(side): round(_bytes(taps, side) / 4 * samples / GIB, 3) for side in sides
        },
    }


def _bytes(taps: list[dict], side: int) -> int:
    """Bytes a sample, in float32, of the taps up to `side` px."""
    return sum(tap["bytes_per_sample"] for tap in taps if tap["shape"][1] <= side)


def report(found: dict) -> str:
    """The facts as text, a tap a line."""
    trial, study = found["trial"], found["study"]
    lines = [
        f"{found['file']} ({found['format']}): {found['family']}, {found['resolution']} px",
        f"z {found['z_dim']}, w {found['w_dim']} x {found['num_ws']} rows, "
        f"mapping of {found['mapping_depth']} layers, |w_avg| {found['w_avg_norm']}, "
        f"{found['parameters']:,} parameters",
        f"trial: {'finite' if trial['finite'] else 'NOT FINITE'}, "
        f"{trial['image_min']} to {trial['image_max']}, sd {trial['image_std']}, "
        f"{trial['seconds_per_sample']} s on {trial['threads']} thread(s)",
        "",
        f"{'tap':14} {'channels':>8} {'px':>5} {'MB a sample, float32':>21}",
    ]
    for tap in found["taps"]:
        channels, side, _ = tap["shape"]
        lines.append(
            f"{tap['name']:14} {channels:8} {side:5} {tap['bytes_per_sample'] / 1e6:21.3f}"
        )
    lines += [
        f"{'all':14} {found['channels']:8} {'':5} {found['bytes_per_sample'] / 1e6:21.3f}",
        "",
        f"a study of {study['samples']} samples (int8; float16 takes twice the disk):",
        f"  a pass over all samples  {study['minutes_per_pass']} min",
        f"  pixel store, all taps    {study['pixels_gib']} GiB",
    ]
    for side, gib in study["features_gib_by_max_tap_resolution"].items():
        lines.append(f"  feature store to {side:>4} px  {gib:>7} GiB")
    return "\n".join(lines)
