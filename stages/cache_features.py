"""ws become images at label size and native feature maps in a store, described by a manifest."""

from pathlib import Path

from stages import run


def cache_features(
    checkpoint: Path,
    latents: Path,
    manifest: Path,
    images: Path,
    *,
    label_size: int,
    max_tap_resolution: int,
    samples_per_shard: int = 8,
    stored: str = "int8",
    max_gib: float,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
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

    source = open_source(checkpoint, latents, device, compute)
    group, taps = Group(latents), select(source.generator().taps, max_tap_resolution)
    facts = {
        "generator": sha256(checkpoint)[:16],
        "ws": group.digest("ws"),
        "compute": source.compute,
        **group.attributes,
    }
    plan = plan_features(facts, taps, stored, label_size, group.splits, samples_per_shard)
    store = fill(plan, source, taps, max_gib, workers)
    write_group(images, {f"{s}/images": store.rows(s, "images") for s in plan.splits}, facts)
    write_manifest(
        manifest,
        store,
        ["python", "-m", "stages.cache_features", *sys.argv[1:], "--compute", source.compute],
    )


if __name__ == "__main__":
    run(cache_features)
