"""Feature maps, images, and extractors' logits, losses, gradients and scores of the published
implementations, on random small networks, driven from our generators' own features.

The files in tests/data were computed by GenForce's, NVLabs' and rosinality's code; biases, noise
strengths and other tensors that start at zero were drawn too, so every term counts.
"""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign import golden, nvlabs_bytes, nvlabs_network, part, torch_bytes

from pipeline.extractors.published import load_published_extractor
from pipeline.generators.registry import load_generator, read_generator
from pipeline.generators.taps import record
from pipeline.metrics.iou import PixelCounts
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import write_safetensors

TOLERANCE = 1e-4  # of the largest value


def genforce(name):
    """A GenForce .pth: the smooth generator is the one to read, and the other one is wrong."""
    tensors = part(golden(name), "sd/")
    wrong = {k: v + 1 for k, v in tensors.items()}
    return torch_bytes({"generator": wrong, "generator_smooth": tensors, "step": 7})


def rosinality(name):
    values = golden(name)
    return torch_bytes({"g_ema": part(values, "sd/"), "latent_avg": values["latent_avg"]})


def nvlabs(name):
    return nvlabs_bytes(nvlabs_network(part(golden(name), "sd/")))


def plain(name, zipped=True):
    """A bare state dict, as torch.save(network.state_dict()) writes it."""
    return torch_bytes(part(golden(name), "sd/"), zipped)


FILES = {  # every family in every layout and format that it comes in
    "pggan, GenForce": ("pggan", genforce),
    "stylegan, GenForce": ("stylegan", genforce),
    "stylegan2, GenForce": ("stylegan2", genforce),
    "stylegan2, NVLabs pickle": ("stylegan2_ada_nvlabs_32", nvlabs),
    "stylegan2, rosinality": ("stylegan2_rosinality_32", rosinality),
    "stylegan, state dict": ("stylegan", plain),
    "stylegan2, state dict, NVLabs names": ("stylegan2_ada_nvlabs_32", plain),
    "pggan, state dict of an old torch": ("pggan", lambda name: plain(name, zipped=False)),
}


def load(folder, name, write):
    path = folder / "checkpoint"
    path.write_bytes(write(name))
    return load_generator(path)


@pytest.fixture(scope="module", params=FILES)
def case(request, tmp_path_factory):
    """A golden file, and the generator read from a file of it."""
    name, write = FILES[request.param]
    return name, golden(name), load(tmp_path_factory.mktemp("zoo"), name, write)


def error(ours, published):
    return float((ours.detach() - published).abs().max() / published.abs().max())


def passes(values):
    """(ws, image's key, options of synthesis) of each forward pass that a golden file holds."""
    if "wp_trunc" in values:
        yield values["wp_notrunc"], "image_notrunc", {}
        yield values["wp_trunc"], "image", {}
    elif "ws_mixed" in values:
        yield values["ws_mixed"], "image_mixed", {}
        yield values["ws_psi0.6"], "image_noise_none", {"noise_mode": "none"}
        yield values["ws_psi0.6"], "image", {}
    elif "latent_avg" in values:
        yield values["ws_psi0.6"], "image_psi0.6_fixed_noise", {}
    else:
        yield values["z"][:, None], "image", {}


def test_mapping_and_truncation(case):
    name, values, generator = case
    ws = generator.mapping(values["z"])
    wanted = {
        "wp_notrunc": ws,
        "ws": ws,
        "w": ws[:, 0],
        "ws_psi0.6": generator.mapping(values["z"], 0.6),
        "ws_psi0.5_cutoff4": generator.mapping(values["z"], 0.5, 4),
    }
    if "trunc" in values:
        psi, cutoff = values["trunc"].tolist()
        wanted["wp_trunc"] = generator.mapping(values["z"], psi, int(cutoff))
    known = {key: value for key, value in wanted.items() if key in values}
    assert known or name == "pggan", "PGGAN has no mapping"
    assert {key: error(value, values[key]) < TOLERANCE for key, value in known.items()} == {
        key: True for key in known
    }


def test_images(case):
    _, values, generator = case
    for ws, key, options in passes(values):
        assert error(generator.synthesis(ws, **options), values[key]) < TOLERANCE, key


def test_every_feature_map(case):
    _, values, generator = case
    maps = part(values, "feat/") or part(golden("extractors_stylegan2"), "feat/")
    assert len(maps) == len(generator.taps)
    *_, (ws, _, options) = passes(values)  # the last pass is the one whose maps were kept
    with record(generator, generator.taps) as features:
        generator.synthesis(ws, **options)
    for tap, published in zip(generator.taps, maps.values(), strict=True):
        assert error(features[tap.name], published) < TOLERANCE, tap.name


@pytest.mark.parametrize("name", ["pggan", "stylegan"])
@pytest.mark.parametrize("kind", ["lse_softplus", "lse_none", "lse_sigmoid_bias", "nse1", "nse2"])
def test_published_extractors_on_our_features(tmp_path, name, kind):
    values, generator = golden(name), load(tmp_path, name, genforce)
    *_, (ws, _, _) = passes(values)
    with record(generator, generator.taps) as features:
        generator.synthesis(ws)
    layers = values["ref_layers"].tolist()
    assert [generator.taps[i].name.endswith("_conv2") for i in layers] == [True] * len(layers)
    path = tmp_path / "extractor.pth"
    arch = {
        "n_class": 5,
        "dims": [generator.taps[i].channels for i in layers],
        "layers": layers,
        "lw_type": {"lse_softplus": "softplus", "lse_sigmoid_bias": "sigmoid"}.get(kind, "none"),
        "type": {"nse1": "NSE-1", "nse2": "NSE-2"}.get(kind, "LSE"),
    }
    if kind == "nse1":
        arch["lw_type"] = "softplus"
    path.write_bytes(torch_bytes({"arch": arch, "param": part(values, f"{kind}/sd/")}))
    extractor = load_published_extractor(path, generator.taps).requires_grad_(True)

    expected, size = part(values, f"{kind}/"), int(values["label_size"])
    logits = extractor.logits(features, size)
    assert error(logits, expected["logits"]) < TOLERANCE
    label = values["label"].long()
    loss = F.cross_entropy(logits, label)
    assert error(loss, expected["loss"]) < TOLERANCE
    loss.backward()
    if kind == "lse_none":  # folded weights have other gradients: see test_golden_extractors.py
        for i, weight in enumerate(extractor.weights):
            assert error(weight.grad, expected[f"grad/extractor.{i}.weight"][..., 0, 0]) < 1e-3
    counts = PixelCounts(5)
    counts.add(logits.detach().argmax(1).to(torch.uint8).numpy(), label.to(torch.uint8).numpy())
    intersection, union = counts.intersection_union()
    iou = np.where(union > 0, intersection / np.maximum(union, 1), -1)[:, 1:]
    np.testing.assert_allclose(iou, expected["iou_per_image"], atol=1e-5)


def test_conversion_to_safetensors_changes_nothing(case, tmp_path):
    _, values, generator = case
    state = {k: v for k, v in generator.state_dict().items()}
    facts = {"family": generator.family}
    write_safetensors(tmp_path / "ours.safetensors", state, facts)
    again = load_generator(tmp_path / "ours.safetensors")
    ws, _, options = next(passes(values))
    assert torch.equal(again.synthesis(ws, **options), generator.synthesis(ws, **options))
    assert again.taps == generator.taps


def test_taps_of_second_convolutions_only(tmp_path):
    values = golden("stylegan")
    generator = load(tmp_path, "stylegan", genforce)
    few = load_generator(tmp_path / "checkpoint", taps="second_conv")
    assert few.taps == tuple(generator.taps[i] for i in values["ref_layers"].tolist())
    assert torch.equal(few.synthesis(values["wp_trunc"]), generator.synthesis(values["wp_trunc"]))
    load(tmp_path, "stylegan2", genforce)
    with pytest.raises(InputError, match="taps second_conv of a stylegan2; wanted a pggan or styl"):
        load_generator(tmp_path / "checkpoint", taps="second_conv")


def with_classes(classes=3, width=6):
    """The NVLabs file with a conditional mapping, and the embedding's and first layer's tensors."""
    tensors = part(golden("stylegan2_ada_nvlabs_32"), "sd/")
    rng = torch.Generator().manual_seed(0)
    drawn = {
        "mapping.embed.weight": torch.randn(width, classes, generator=rng),
        "mapping.embed.bias": torch.randn(width, generator=rng),
        "mapping.fc0.weight": torch.randn(24, 24 + width, generator=rng) * 100,
    }
    return tensors | drawn


@pytest.mark.parametrize("class_idx", [0, 2])
def test_a_class_of_a_conditional_network(tmp_path, class_idx):
    tensors = with_classes()
    path = tmp_path / "conditional.pkl"
    path.write_bytes(nvlabs_bytes(nvlabs_network(tensors)))
    generator = load_generator(path, class_idx=class_idx)

    def fully_connected(x, name, rate=0.01):
        weight, bias = tensors[f"mapping.{name}.weight"], tensors[f"mapping.{name}.bias"]
        return x @ weight.T * (rate / weight.shape[1] ** 0.5) + bias * rate

    def normalized(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    z = golden("stylegan2_ada_nvlabs_32")["z"]
    one_hot = torch.eye(3)[[class_idx] * len(z)]
    x = torch.cat([normalized(z), normalized(fully_connected(one_hot, "embed", 1.0))], 1)
    for layer in range(4):
        x = F.leaky_relu(fully_connected(x, f"fc{layer}"), 0.2) * 2**0.5
    assert error(generator.mapping(z)[:, 0], x) < TOLERANCE
    assert read_generator(path, class_idx=class_idx)[1]["class_idx"] == class_idx


def test_classes_that_are_not_there(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(nvlabs_bytes(nvlabs_network(with_classes())))
    for class_idx, wanted in ((None, "a class_idx, 0 to 2"), (3, "0 to 2"), (-1, "0 to 2")):
        with pytest.raises(InputError, match=f"wanted {wanted}"):
            load_generator(path, class_idx=class_idx)
    path.write_bytes(nvlabs("stylegan2_ada_nvlabs_32"))
    with pytest.raises(InputError, match="a network without classes; wanted no class_idx"):
        load_generator(path, class_idx=0)


def test_layers_are_clamped_as_the_pickle_says(tmp_path):
    values, path = golden("stylegan2_ada_nvlabs_32"), tmp_path / "x.pkl"
    tensors = part(values, "sd/")
    free = load(tmp_path, "stylegan2_ada_nvlabs_32", nvlabs)
    path.write_bytes(nvlabs_bytes(nvlabs_network(tensors, conv_clamp=0.5)))
    clamped = load_generator(path)
    with record(free, free.taps) as before, record(clamped, clamped.taps) as after:
        free.synthesis(values["ws"]), clamped.synthesis(values["ws"])
    first = free.taps[0].name
    assert before[first].abs().max() > 0.6
    assert torch.equal(after[first], before[first].clamp(-0.5, 0.5))
    assert all(x.abs().max() <= 0.5 for x in after.values())
    write_safetensors(tmp_path / "y", dict(clamped.state_dict()), {"family": "stylegan2"})
    again = load_generator(tmp_path / "y")
    assert torch.equal(again.synthesis(values["ws"]), clamped.synthesis(values["ws"]))


def test_a_missing_average_is_measured(tmp_path):
    values = golden("stylegan2_rosinality_32")
    path = tmp_path / "x.pt"
    path.write_bytes(torch_bytes({"g_ema": part(values, "sd/")}))
    generator = load_generator(path)
    z = torch.randn(20000, 24, generator=torch.Generator().manual_seed(5))
    expected = generator.style(z)
    margin = 6 * expected.std(0) * (1 / 10_000 + 1 / 20_000) ** 0.5
    assert ((generator.w_avg - expected.mean(0)).abs() < margin).all()


def test_fused_upsampling_by_its_definition():
    """Repeat pixels, then convolve by the sum over four shifts / the published transposed form."""
    from pipeline.generators.importers.translations import _fuse

    rng = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(1, 2, 4, 4, generator=rng), torch.randn(3, 2, 3, 3, generator=rng)
    expected = torch.zeros(1, 3, 10, 10)
    for y in range(4):
        for z in range(4):
            for dy in range(2):  # each pixel is spread over 2 x 2, each weighted by the kernel
                for dz in range(2):
                    spread = torch.einsum("ni,oiab->noab", x[:, :, y, z], kernel)
                    expected[:, :, 2 * y + dy : 2 * y + dy + 3, 2 * z + dz : 2 * z + dz + 3] += (
                        spread
                    )
    ours = F.conv_transpose2d(x, _fuse(kernel).transpose(0, 1), stride=2, padding=1)
    torch.testing.assert_close(ours, expected[:, :, 1:9, 1:9])


def test_stylegan_is_fused_from_128_px_on(tmp_path):
    """A 128 px network has one layer that upsamples by a transposed convolution."""
    tensors = part(golden("stylegan"), "sd/")
    for new, old in ((8, 6), (9, 7), (10, 6), (11, 7)):
        for name, value in part(tensors, f"synthesis.layer{old}.").items():
            noise = name == "apply_noise.noise"
            side = 64 if new < 10 else 128
            tensors[f"synthesis.layer{new}.{name}"] = (
                torch.zeros(1, 1, side, side) if noise else value
            )
    for level in (4, 5):
        tensors |= {
            f"synthesis.output{level}.{k}": v
            for k, v in part(tensors, "synthesis.output3.").items()
        }
    path = tmp_path / "x.pth"
    torch.save({"generator_smooth": tensors}, path)
    generator = load_generator(path)
    kernels = [tuple(layer.weight.shape[2:]) for layer in generator.layers[2::2]]
    assert generator.resolution == 128
    assert kernels == [(3, 3)] * 4 + [(4, 4)]
    assert generator.synthesis(generator.mapping(torch.ones(1, 32))).isfinite().all()


@pytest.mark.parametrize("fused", [False, True])
def test_pggan_finds_out_whether_it_is_fused(tmp_path, fused):
    """Where the width changes, a fused kernel is stored as [in, out, 3, 3]."""
    tensors = part(golden("pggan"), "sd/")
    tensors["layer6.weight"] = (
        tensors["layer6.weight"][:, :8] if fused else tensors["layer6.weight"][:8]
    )
    tensors["layer6.bias"] = tensors["layer6.bias"][:8]
    tensors["layer7.weight"] = tensors["layer7.weight"][:8, :8]
    tensors["layer7.bias"] = tensors["layer7.bias"][:8]
    tensors["output3.weight"] = tensors["output3.weight"][:, :8]
    path = tmp_path / "x.pth"
    path.write_bytes(torch_bytes(tensors))
    generator = load_generator(path)
    assert [layer.fused for layer in generator.layers[2::2]] == [fused] * 3
    assert [tap.channels for tap in generator.taps] == [16] * 6 + [8] * 2
    write_safetensors(tmp_path / "y", dict(generator.state_dict()), {"family": "pggan"})
    z = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_generator(tmp_path / "y").synthesis(z), generator.synthesis(z))


def test_a_growing_network_is_refused(tmp_path):
    tensors = part(golden("pggan"), "sd/") | {"lod": torch.tensor(1.5)}
    buffer = io.BytesIO()
    torch.save({"generator": tensors}, buffer)
    (tmp_path / "x").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"lod 1\.5: a network that still grows"):
        load_generator(tmp_path / "x")
    torch.save(tensors | {"lod": torch.zeros(2)}, tmp_path / "x")
    with pytest.raises(InputError, match=r"tensors that no pggan has .ValueError"):
        load_generator(tmp_path / "x")
