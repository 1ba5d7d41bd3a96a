"""ws become images at label size and native feature maps in a store, described by a manifest."""

from pathlib import Path

from pipeline.data.options import FeatureCache
from pipeline.runtime.options import Machine
from stages import run


def cache_features(
    checkpoint: Path,
    latents: Path,
    manifest: Path,
    images: Path,
    *,
    cache: FeatureCache,
    machine: Machine,
) -> None:
    """Synthesize every sample once; keep images and the taps up to max_tap_resolution px.

    Prints bytes, seconds and peak disk first. Killed, it goes on where it stopped; run again, it
    checks one sample of every shard and keeps the rest.
    """
    import sys

    from pipeline.data.arrays import Group, write_group
    from pipeline.data.features import fill, open_source, plan_features
    from pipeline.data.stores import write_manifest
    from pipeline.generators.taps import select
    from pipeline.runtime.files import sha256

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    group, taps = Group(latents), select(source.generator().taps, cache.max_tap_resolution)
    facts = {
        "generator": sha256(checkpoint)[:16],
        "ws": group.digest("ws"),
        "compute": source.compute,
        **group.attributes,
    }
    plan = plan_features(
        facts, taps, cache.stored, cache.label_size, group.splits, cache.samples_per_shard
    )
    store = fill(plan, source, taps, cache.max_gib, machine.workers)
    write_group(images, {f"{s}/images": store.rows(s, "images") for s in plan.splits}, facts)
    write_manifest(
        manifest,
        store,
        ["python", "-m", "stages.cache_features", *sys.argv[1:], "--compute", source.compute],
    )


if __name__ == "__main__":
    run(cache_features)
