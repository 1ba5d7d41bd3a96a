"""Pairs of face images and masks from a folder, and the augmentation that makes few go far."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.runtime.errors import InputError
from pipeline.teachers.labels import FLIP19


@dataclass(frozen=True)
class Pairs:
    """images [N, 3, S, S] uint8 and masks [N, S, S] uint8; digest names the files' content.

    weights [N, S, S] uint8 say how far each pixel counts, 255 in full; None: all alike.
    """

    images: Tensor
    masks: Tensor
    digest: str
    weights: Tensor | None = None

    def part(self, rows: slice) -> "Pairs":
        """The pairs `rows`, in sorted-name order."""
        weights = None if self.weights is None else self.weights[rows]
        return Pairs(self.images[rows], self.masks[rows], self.digest, weights)

    def to(self, device: torch.device) -> "Pairs":
        """The same pairs on `device`."""
        weights = None if self.weights is None else self.weights.to(device)
        return Pairs(self.images.to(device), self.masks.to(device), self.digest, weights)


def load_pairs(folder: str | Path, size: int, num_classes: int) -> Pairs:
    """Read `folder`/images/* and `folder`/masks/<same stem>.png, sorted by name, at `size` px.

    Masks are single-channel PNG whose pixel value is the class id. Images are area-averaged,
    masks take the nearest pixel. InputError for a missing mask, another size or an unknown id.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("images/*") if p.suffix.lower() in {".jpg", ".png"})
    if not paths:
        raise InputError(
            f"no images in {folder / 'images'}",
            "a folder with images/*.jpg|png and masks/*.png of the same names",
            "put the pairs there or name another folder",
        )
    images, masks, digest = [], [], hashlib.sha256()
    for path in paths:
        image, mask, content = _read_pair(path, folder / "masks" / f"{path.stem}.png", num_classes)
        digest.update(content)
        images.append(np.asarray(image.resize((size, size), Image.Resampling.BOX)))
        masks.append(np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)))
    return Pairs(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack(masks)),
        digest.hexdigest()[:16],
    )


def _read_pair(
    path: Path, mask_path: Path, num_classes: int
) -> tuple[Image.Image, Image.Image, bytes]:
    if not mask_path.exists():
        raise InputError(f"image {path} without a mask", f"{mask_path}", "add it or drop the image")
    with Image.open(path) as file:
        image = file.convert("RGB")
    with Image.open(mask_path) as mask:
        mask.load()
    if mask.mode not in {"L", "P"} or mask.size != image.size:
        raise InputError(
            f"mask {mask_path} of mode {mask.mode} and size {mask.size}",
            f"mode L or P and the image's size {image.size}",
            "export masks as one channel of class ids, at the image's size",
        )
    ids = np.asarray(mask)
    if ids.max() >= num_classes:
        raise InputError(
            f"mask {mask_path} with id {ids.max()}",
            f"ids 0-{num_classes - 1}",
            "map the ids to the label space first",
        )
    return image, mask, path.read_bytes() + ids.tobytes()


def sampling_weights(masks: Tensor, num_classes: int) -> Tensor:
    """How often to draw each image [N]: up to 5 times as often if it shows a rare class."""
    present = torch.stack([(masks == c).flatten(1).any(1) for c in range(num_classes)], 1).double()
    share = present.mean(0).clamp_min(1e-9)
    return (present * (0.5 / share).sqrt().clamp(1, 5)).amax(1).clamp_min(1)


def augment(
    images: Tensor,
    masks: Tensor,
    generator: torch.Generator,
    strength: float = 1.0,  # 1: as strong as it gets; 0: flips alone
    swap: Sequence[int] = FLIP19,  # what a flip makes of each class
    weights: Tensor | None = None,  # [N, S, S] uint8, how far each pixel counts
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random flip, rotation, scale, shift, color, blur and noise of uint8 pairs, on their device.

    images [N, 3, S, S] uint8 and masks [N, S, S] uint8 become float32 images in [-1, 1] and
    int64 masks [N, S/2, S/2] at the centers of the networks' half-resolution pixels, where weights
    are float32, 1 at most. The CPU generator draws every parameter, so devices differ in the noise
    alone.
    """
    size, draws = images.shape[-1], _Draws(len(images), generator, strength, images.device)
    theta, flip = _affine_maps(draws)
    # Flipped samples read from a mirrored face, so left and right change names.
    swapped = torch.tensor([*swap, *range(len(swap), 256)], dtype=torch.uint8, device=images.device)
    masks = torch.where(flip.view(-1, 1, 1) < 0, swapped[masks.long()], masks)

    def warp(x: Tensor, out: int, mode: str) -> Tensor:
        grid = F.affine_grid(theta, [len(x), 1, out, out], align_corners=False)
        return F.grid_sample(x, grid, mode, padding_mode="reflection", align_corners=False)

    x = warp(images.float() / 127.5 - 1, size, "bilinear")
    y = warp(masks[:, None].float(), size // 2, "nearest")[:, 0].round().long()
    w = None if weights is None else warp(weights[:, None] / 255, size // 2, "nearest")[:, 0]
    x = _degraded(_recolored(x, draws), draws)
    sigma = strength * draws.uniform(0, 0.1, 1, 1, 1) * (draws.uniform(0, 1, 1, 1, 1) < 0.5)
    return (x + sigma * _noise(x, generator)).clamp(-1, 1), y, w


@dataclass(frozen=True)
class _Draws:
    """Random parameters of a batch, one per sample: drawn on the CPU, moved to a device."""

    num: int
    generator: torch.Generator
    strength: float
    device: torch.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(self.num, *shape, generator=self.generator) * (high - low) + low
        return drawn.to(self.device, non_blocking=True)

    def around(self, center: float, low: float, high: float, *shape: int) -> Tensor:
        return center + self.strength * self.uniform(low - center, high - center, *shape)


def _affine_maps(draws: _Draws) -> tuple[Tensor, Tensor]:
    """A map [N, 2, 3] per sample, which warps image and mask alike, and -1 for a flipped one."""
    angle = torch.randn(draws.num, generator=draws.generator).clamp(-2.5, 2.5)
    angle = angle.to(draws.device) * (0.16 * draws.strength)
    scale = torch.exp2(draws.around(0, -0.5, 0.6))
    aspect = torch.exp2(draws.around(0, -0.15, 0.15))
    flip = torch.where(draws.uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack(
        [
            torch.stack([cos * aspect * flip, -sin, draws.around(0, -0.16, 0.16)], 1),
            torch.stack([sin * flip, cos / aspect, draws.around(0, -0.16, 0.16)], 1),
        ],
        1,
    )
    return theta, flip


def _recolored(x: Tensor, draws: _Draws) -> Tensor:
    """Other contrast, brightness, tint and saturation."""
    gray = x.mean(1, keepdim=True)
    saturation = torch.where(
        draws.uniform(0, 1, 1, 1, 1) < 0.1 * draws.strength,
        0.0,
        draws.around(1, 0.5, 1.5, 1, 1, 1),
    )
    x = gray + (x - gray) * saturation
    level = x.mean((1, 2, 3), keepdim=True)
    x = (x - level) * draws.around(1, 0.6, 1.4, 1, 1, 1) + level
    return x * draws.around(1, 0.85, 1.15, 3, 1, 1) + draws.around(0, -0.25, 0.25, 1, 1, 1)


def _degraded(x: Tensor, draws: _Draws) -> Tensor:
    """Low resolution for a third of the samples, a gray rectangle for some; changes `x`.

    Down to 40 px, so that small generators' images are within the training distribution.
    """
    size, generator = x.shape[-1], draws.generator
    for i in range(draws.num):
        if torch.rand((), generator=generator) < 0.33 * draws.strength:
            low = int(torch.randint(40, size // 2, (), generator=generator))
            small = F.interpolate(x[i : i + 1], (low, low), mode="area")
            x[i] = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)[0]
        if torch.rand((), generator=generator) < 0.15 * draws.strength:
            top, left = torch.randint(0, size * 3 // 4, (2,), generator=generator).tolist()
            x[i, :, top : top + size // 4, left : left + size // 4] = 0
    return x


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise where `like` lies: `generator` draws it on a CPU, and its seed elsewhere."""
    if like.device.type == "cpu":
        return torch.randn(like.shape, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    there = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=there, device=like.device)
