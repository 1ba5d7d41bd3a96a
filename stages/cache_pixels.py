"""ws and masks become hypercolumns of all taps at sampled pixels: what a linear fit reads."""

from pathlib import Path

from pipeline.data.options import PixelCache
from pipeline.runtime.options import Machine
from stages import run


def cache_pixels(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    manifest: Path,
    *,
    cache: PixelCache,
    machine: Machine,
) -> None:
    """Draw weighted pixels of each mask (train, validation, pool) and look their features up."""
    import sys

    from pipeline.data.arrays import Group
    from pipeline.data.features import fill, open_source, plan_pixels
    from pipeline.data.stores import write_manifest
    from pipeline.runtime.files import sha256

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    group, labels, taps = Group(latents), Group(masks), source.generator().taps
    facts = {
        "generator": sha256(checkpoint)[:16],
        "ws": group.digest("ws"),
        "masks": labels.digest("masks"),
        "classes": labels.attributes["classes"],
        "num_classes": len(labels.attributes["classes"]),
        "taps": [vars(tap) for tap in taps],
        "channels": sum(tap.channels for tap in taps),
        "resolution": source.generator().resolution,
        "pixels_per_sample": cache.pixels_per_sample,
        "align_corners": cache.align_corners,
        "compute": source.compute,
    } | group.attributes
    splits = {s: n for s, n in group.splits.items() if s != "test"}
    plan = plan_pixels(facts, facts["channels"], cache.stored, splits, cache.samples_per_shard)
    store = fill(plan, source, taps, cache.max_gib, machine.workers, str(masks))
    write_manifest(
        manifest,
        store,
        ["python", "-m", "stages.cache_pixels", *sys.argv[1:], "--compute", source.compute],
    )


if __name__ == "__main__":
    run(cache_pixels)
