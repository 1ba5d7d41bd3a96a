"""Each architecture of docs/teachers.md, built small: what it says behind its own processor."""

import json

import numpy as np
import pytest
import torch
import transformers
from test_huggingface import NAMES, mask2former, named, segformer, upernet
from torch.nn.functional import interpolate

from pipeline.teachers.registry import load_teacher

SIZE = {"height": 64, "width": 64}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}


def beit():
    config = transformers.BeitConfig(
        **LAYERS,
        **named(6),
        intermediate_size=16,
        image_size=64,
        out_indices=[1, 2, 3, 4],
        pool_scales=[1, 2],
        use_auxiliary_head=False,
    )
    return transformers.BeitForSemanticSegmentation(config)


def dpt():
    config = transformers.DPTConfig(
        **LAYERS,
        **named(6),
        intermediate_size=16,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=16,
        use_auxiliary_head=False,
    )
    return transformers.DPTForSemanticSegmentation(config)


def mobilevit():
    config = transformers.MobileViTConfig(
        **named(6),
        hidden_sizes=[16, 16, 16],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        num_attention_heads=2,
        aspp_out_channels=16,
        image_size=64,
    )
    return transformers.MobileViTForSemanticSegmentation(config)


def mobilenet_v2():
    config = transformers.MobileNetV2Config(**named(6), depth_multiplier=0.35, image_size=64)
    return transformers.MobileNetV2ForSemanticSegmentation(config)


def maskformer():
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        **{"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4},
        image_size=64,
        out_features=stages,
    )
    decoder = transformers.DetrConfig(
        **{"d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "num_queries": 5},
        **{"decoder_attention_heads": 2, "encoder_attention_heads": 2},
        **{"decoder_ffn_dim": 16, "encoder_ffn_dim": 16},
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        **{"fpn_feature_size": 32, "mask_feature_size": 32},
        **named(6),
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


PROCESSORS = {
    segformer: transformers.SegformerImageProcessor(size=SIZE),
    upernet: transformers.SegformerImageProcessor(size=SIZE),
    beit: transformers.BeitImageProcessor(size=SIZE, do_center_crop=False),
    dpt: transformers.DPTImageProcessor(size=SIZE),
    mobilevit: transformers.MobileViTImageProcessor(
        size={"shortest_edge": 64}, do_center_crop=False
    ),
    mobilenet_v2: transformers.MobileNetV2ImageProcessor(
        size={"shortest_edge": 64}, do_center_crop=False
    ),
    mask2former: transformers.Mask2FormerImageProcessor(size=SIZE, size_divisor=32),
    maskformer: transformers.MaskFormerImageProcessor(size=SIZE, size_divisor=32),
}


@pytest.fixture
def images():
    levels = torch.randint(0, 256, (2, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    return levels.float() / 127.5 - 1


def settled(model, inputs):
    """The model with weights and batch norms of a trained one's scale, so that logits differ."""
    for weight in model.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pixel_values=inputs)
    return model.eval()


@pytest.mark.parametrize("make", PROCESSORS, ids=lambda make: make.__name__)
def test_probabilities_are_those_of_the_model_behind_its_own_processor(make, images, tmp_path):
    torch.manual_seed(0)
    processor = PROCESSORS[make]
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    inputs = processor(images=list(pixels), return_tensors="pt")["pixel_values"]
    model = settled(make(), inputs)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path)
    assert teacher.classes == NAMES
    prepared = teacher.network.prepare(images)
    torch.testing.assert_close(prepared, inputs, rtol=0, atol=1e-2)
    with torch.inference_mode():
        output = model(pixel_values=prepared)
        if hasattr(output, "logits"):
            logits = output.logits
        else:
            of_class = output.class_queries_logits.softmax(-1)[..., :-1]
            in_mask = output.masks_queries_logits.sigmoid()
            logits = torch.einsum("nqc,nqhw->nchw", of_class, in_mask).log()
        wanted = interpolate(logits, (64, 64), mode="bilinear", align_corners=False).softmax(1)
        found = teacher.probabilities(images, 64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    assert float(wanted.std()) > 1e-3, "logits that differ"


@pytest.mark.parametrize("options", [{"max_shard_size": "20KB"}, {"safe_serialization": False}])
def test_weights_in_several_files_or_in_the_old_format_are_read(options, images, tmp_path):
    torch.manual_seed(0)
    model = segformer().eval()
    facts = json.dumps({"size": SIZE, "image_processor_type": "SegformerImageProcessor"})
    for name, chosen in (("plain", {}), ("other", options)):
        model.save_pretrained(tmp_path / name, **chosen)
        (tmp_path / name / "preprocessor_config.json").write_text(facts)
    files = {file.name for file in (tmp_path / "other").iterdir()}
    if "safe_serialization" in options:
        torch.save(model.state_dict(), tmp_path / "other" / "pytorch_model.bin")
        (tmp_path / "other" / "model.safetensors").unlink(missing_ok=True)
    else:
        assert "model.safetensors.index.json" in files, files
    masks = [load_teacher(tmp_path / name).label(images, 32) for name in ("plain", "other")]
    np.testing.assert_array_equal(*masks)
