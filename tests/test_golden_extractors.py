"""Logits, loss, gradients and scores of the published implementation, on random small networks.

Features, weights and results were computed by the paper's released code with align_corners=True;
its logits were kept at every fifth pixel. The released LSE ("softplus") and NSE-1 weight each tap
by a_i = softplus(v_i) / sum softplus(v), which is folded into the tap's last weights here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.extractors.networks import LSE, NSE1, NSE2
from pipeline.generators.taps import Tap
from pipeline.metrics.iou import PixelCounts

DATA = Path(__file__).parent / "data"
CLASSES = tuple("abcde")
STRIDE = 5


class Golden:
    """One generator's features and mask, and what the published extractors made of them."""

    def __init__(self, name: str):
        with np.load(DATA / f"extractors_{name}.npz") as file:
            self.values = {key: torch.from_numpy(file[key]) for key in file.files}
        maps = {k.partition("/")[2]: v for k, v in self.values.items() if k.startswith("feat/")}
        self.features = dict(sorted(maps.items(), key=lambda item: int(item[0])))
        self.taps = tuple(Tap(k, k, x.shape[1], x.shape[2]) for k, x in self.features.items())
        self.label = self.values["label"].long()

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Values under a prefix, which is cut off."""
        return {k[len(prefix) :]: v for k, v in self.values.items() if k.startswith(prefix)}

    def shares(self, kind: str) -> torch.Tensor:
        """The published weights of the taps; ones for a plain sum."""
        given = F.softplus(self.values.get(f"{kind}/sd/layer_weight", torch.zeros(0)))
        plain = kind == "lse_none" or not len(given)
        return torch.ones(len(self.taps)) if plain else given / given.sum()


def lse(golden: Golden, kind: str):
    """The LSE and its parameters by published name, with the factor folded into each."""
    extractor = LSE(CLASSES, golden.taps, align_corners=True)
    shares = golden.shares(kind)
    names = {f"extractor.{i}.weight": (w, shares[i]) for i, w in enumerate(extractor.weights)}
    for name, (weight, share) in names.items():
        weight.data = share * golden.values[f"{kind}/sd/{name}"][..., 0, 0]
    return extractor, names


def nse1(golden: Golden, kind: str):
    extractor = NSE1(CLASSES, golden.taps, align_corners=True)
    shares = golden.shares(kind)
    names = {}
    for name, value in extractor.named_parameters():
        _, index, layer, what = name.split(".")
        share = shares[int(index)] if layer == "4" else torch.tensor(1.0)
        names[f"extractor.{index}.{layer}.{what}"] = value, share
    for name, (value, share) in names.items():
        value.data = share * golden.values[f"{kind}/sd/{name}"]
    return extractor, names


def nse2(golden: Golden, kind: str):
    extractor = NSE2(CLASSES, golden.taps, align_corners=True)
    rename = {"encoders": "extractor", "revisers": "reviser", "out": "visualizer"}
    names = {}
    for name, value in extractor.named_parameters():
        first, *rest = name.split(".")
        middle = [rest[0], "0", rest[1]] if len(rest) == 2 else rest
        names[".".join([rename[first], *middle])] = value, torch.tensor(1.0)
    for name, (value, _) in names.items():
        value.data = golden.values[f"{kind}/sd/{name}"].clone()
    return extractor, names


BUILDERS = {"lse_softplus": lse, "lse_none": lse, "nse1": nse1, "nse2": nse2}


@pytest.fixture(scope="module", params=["stylegan2", "pggan"])
def golden(request):
    return Golden(request.param)


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_published_extractor(golden, kind):
    extractor, names = BUILDERS[kind](golden, kind)
    published = {k for k in golden.part(f"{kind}/sd/") if k != "layer_weight"}
    assert set(names) == published, "every published weight, and no other"
    assert len(names) == len(list(extractor.parameters()))
    size, expected = golden.label.shape[-1], golden.part(f"{kind}/")

    logits = extractor.logits(golden.features, size)
    torch.testing.assert_close(
        logits[..., ::STRIDE, ::STRIDE], expected["logits"], rtol=1e-4, atol=2e-5
    )
    loss = F.cross_entropy(logits, golden.label)
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=1e-6)

    loss.backward()
    for name, (value, share) in names.items():
        gradient, wanted = value.grad * share, expected[f"grad/{name}"]
        torch.testing.assert_close(
            gradient.view_as(wanted), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())
        )

    counts = PixelCounts(len(CLASSES))
    masks = logits.detach().argmax(1).to(torch.uint8).numpy()  # `predict` may compute in bfloat16
    counts.add(masks, golden.label.to(torch.uint8).numpy())
    intersection, union = counts.intersection_union()
    iou = np.where(union > 0, intersection / np.maximum(union, 1), -1)[:, 1:]
    np.testing.assert_allclose(iou, expected["iou_per_image"], atol=1e-5)
