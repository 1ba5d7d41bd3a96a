"""Images reach a model as its own processor of transformers gives them."""

import pytest
import torch
import transformers

from pipeline.teachers.preprocessing import of_processor

MEANS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
SQUARE, EDGE = {"size": {"height": 64, "width": 96}}, {"size": {"shortest_edge": 40}}
CROP = {"do_center_crop": False}
CASES = {
    "SegFormer": ("Segformer", SQUARE | MEANS),
    "SegFormer, size a number": ("Segformer", {"size": 33}),
    "SegFormer, not normalized": ("Segformer", SQUARE | {"do_normalize": False}),
    "SegFormer, not rescaled": ("Segformer", SQUARE | {"do_rescale": False}),
    "SegFormer, another factor": ("Segformer", SQUARE | {"rescale_factor": 1 / 127.5}),
    "UPerNet": ("Segformer", {"size": {"height": 80, "width": 64}, "resample": 3} | MEANS),
    "UPerNet, ConvNeXt's": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "BEiT": ("Beit", {"size": {"height": 64, "width": 64}}),
    "BEiT, labels reduced": ("Beit", {"size": 50, "do_reduce_labels": True}),
    "DPT": ("DPT", {"size": {"height": 70, "width": 90}}),
    "DPT, multiples": ("DPT", SQUARE | {"keep_aspect_ratio": True, "ensure_multiple_of": 32}),
    "MobileViT": ("MobileViT", EDGE | CROP),
    "MobileViT, not flipped": ("MobileViT", EDGE | CROP | {"do_flip_channel_order": False}),
    "MobileNetV2": ("MobileNetV2", EDGE | CROP),
    "Mask2Former": ("Mask2Former", {"size": {"shortest_edge": 50, "longest_edge": 70}}),
    "MaskFormer": ("MaskFormer", {"size": {"shortest_edge": 64, "longest_edge": 128}} | MEANS),
    "no resizing": ("Segformer", {"do_resize": False}),
    "nearest": ("Segformer", SQUARE | {"resample": 0}),
    "Lanczos": ("Segformer", SQUARE | {"resample": 1}),
}


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize("sides", [(48, 48), (128, 128), (60, 84)])
def test_images_are_as_the_models_own_processor_gives_them(what, sides):
    name, options = CASES[what]
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**options)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (1, 3, *sides), generator=generator)
    pixels = levels[0].byte().permute(1, 2, 0).numpy()
    expected = processor(images=[pixels], return_tensors="pt")["pixel_values"]
    images = (levels / 127.5 - 1).requires_grad_()
    found = of_processor(processor, "x")(images)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-2)
    found.sum().backward()
    assert images.grad.isfinite().all() and float(images.grad.abs().max()) > 0
