"""Seeds become z and ws, per split: one seed per sample."""

from pathlib import Path

from pipeline.generators.options import Samples
from stages import run


def sample_latents(
    checkpoint: Path,
    latents: Path,
    *,
    samples: Samples,
) -> None:
    """Draw z for every split and map it to ws, truncated towards w_avg by truncation_psi."""
    import torch

    from pipeline.data.arrays import write_group
    from pipeline.generators.latents import sample_z, split_seeds
    from pipeline.generators.registry import load_generator
    from pipeline.runtime.files import sha256

    generator = load_generator(checkpoint)
    psi = samples.truncation_psi
    arrays: dict = {}
    for split, seeds in split_seeds(samples.splits, samples.seed).items():
        z = sample_z(seeds, generator.z_dim)
        with torch.inference_mode():
            ws = generator.mapping(torch.from_numpy(z), psi)
        arrays |= {f"{split}/seeds": seeds, f"{split}/z": z, f"{split}/ws": ws.numpy()}
    facts = {"generator": sha256(checkpoint)[:16], "truncation_psi": psi, "seed": samples.seed}
    write_group(latents, arrays, facts)


if __name__ == "__main__":
    run(sample_latents)
