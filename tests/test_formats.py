"""Readers of other projects' files: hostile ones have no effect, damaged ones give a sentence."""

import argparse
import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
import toys
from foreign import (
    Network,
    golden,
    nvlabs_bytes,
    nvlabs_modules,
    nvlabs_network,
    part,
    torch_bytes,
)
from safetensors.torch import save

from pipeline.generators.readers.formats import read_checkpoint, sniff
from pipeline.generators.readers.nvlabs import read_nvlabs
from pipeline.generators.readers.torchzip import load_plain
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import write_safetensors


class Touch:
    """Unpickling creates a file, as a poisoned checkpoint could do worse."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


class StorageBytes:
    """What a tensor's storage is in a pickle: a torch file in the file, here any content."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return (torch.storage._load_from_bytes, (self.content,))


def network_with(value) -> Network:
    network = nvlabs_network({"synthesis.b4.const": torch.zeros(2, 4, 4)})
    network.state["_parameters"]["x"] = value
    return network


def hostile_files(target):
    """{what: (bytes, what the error says)}; each would create `target` if anything ran."""
    touch, source = Touch(target), f"open({str(target)!r}, 'w')"
    return {
        "a reduce in a pickle": (nvlabs_bytes(network_with(touch)), "calls io.open"),
        "a reduce beside the network": (
            nvlabs_bytes(network_with(torch.zeros(1)), note=touch),
            "calls io.open",
        ),
        "a reduce in a storage, legacy": (
            nvlabs_bytes(network_with(StorageBytes(torch_bytes(touch, zipped=False)))),
            "it names io.open",
        ),
        "a reduce in a storage, zip": (
            nvlabs_bytes(network_with(StorageBytes(torch_bytes(touch)))),
            "it names io.open",
        ),
        "a bare pickle in a storage": (
            nvlabs_bytes(network_with(StorageBytes(pickle.dumps(touch)))),
            "plain weights",
        ),
        "a reduce in a torch file": (torch_bytes({"g_ema": {"x": touch}}), "it names io.open"),
        "a reduce in a legacy torch file": (
            torch_bytes({"g_ema": {"x": touch}}, zipped=False),
            "it names io.open",
        ),
        "hostile module_src": (
            nvlabs_bytes(
                nvlabs_network({"synthesis.b4.const": torch.zeros(2, 4, 4)}, source=source)
            ),
            "unknown names",  # read as data: it lacks the rest of a network
        ),
    }


@pytest.mark.parametrize("what", hostile_files("x"))
def test_nothing_in_a_file_is_run(tmp_path, what):
    target, path = tmp_path / "executed", tmp_path / "checkpoint"
    content, message = hostile_files(target)[what]
    target.unlink(missing_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_generator(path)
    assert not target.exists()


def test_hostile_source_in_a_good_network_is_never_run(tmp_path):
    tensors = part(golden("stylegan2_ada_nvlabs_32"), "sd/")
    path = tmp_path / "x.pkl"
    source = f"open({str(tmp_path / 'executed')!r}, 'w')"
    path.write_bytes(nvlabs_bytes(nvlabs_network(tensors, source=source)))
    assert load_generator(path).resolution == 32
    assert list(tmp_path.iterdir()) == [path]


def test_an_opcode_cannot_change_a_stand_in():
    """BUILD sets attributes on whatever lies on the stack; no later file may see them."""
    name = b"ctorch._utils\n_rebuild_parameter\n"
    read_nvlabs(b"\x80\x02" + name + b"}(X\x01\0\0\0xX\x01\0\0\0yub.")  # x = "y" on the callable
    clean = read_nvlabs(b"\x80\x02" + name + b".")
    assert not hasattr(clean, "x")


def memo_bomb() -> bytes:
    return b"\x80\x04]r" + struct.pack("<I", 2**32 - 2) + b"."


def long_length() -> bytes:
    return b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc."


def repeated_copies() -> bytes:
    """100,000 copies of a dict of 100,000: it is refused to make a mapping of another one."""
    entries = b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(100_000))
    first = b"\x80\x02}q\x00(" + entries + b"u"
    name = b"ccollections\nOrderedDict\nq\x010"
    return first + b"0" + name + b"h\x01h\x00\x85R0" * 99_999 + b"N."


def nested_tuples() -> bytes:
    return b"\x80\x04)" + b"\x85" * 200_000 + b"}\x94N\x86."


def huge_tensor() -> bytes:
    """A tensor of 8 GiB over a storage of four values."""
    file = io.BytesIO(torch_bytes({"g_ema": {"x": torch.zeros(4)}}))
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):  # the size (4,) and stride (1,)
                content = content.replace(b"K\x04\x85q", b"J\xff\xff\xff\x7f\x85q")
            archive.writestr(name, content)
    return out.getvalue()


def zip_bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    return out.getvalue()


def expanded() -> bytes:
    return torch_bytes({"g_ema": {"x": torch.zeros(1).expand(2**20, 2**20)}})


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param(memo_bomb(), "hostile memo", id="memo index of 2^32"),
        pytest.param(b"\x80\x02]p4294967294\n.", "hostile memo", id="the same as text"),
        pytest.param(repeated_copies(), "damaged pickle", id="dict copied again and again"),
        pytest.param(long_length(), "damaged pickle", id="string of a TiB"),
        pytest.param(nested_tuples(), "too many parts", id="nested tuples"),
        pytest.param(huge_tensor(), "plain weights|larger than the file", id="tensor of 8 GiB"),
        pytest.param(expanded(), "larger than the file", id="one value expanded to 4 TiB"),
        pytest.param(zip_bomb(), "a compressed zip file", id="zip bomb"),
        pytest.param(b"\x80", "of no known format", id="one byte"),
        pytest.param(b"\x80\x04\x82\x01.", "EXT1", id="extension registry"),
    ],
)
def test_hostile_sizes(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


def tensorflow_pickle() -> bytes:
    return b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81."


def torchscript() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/constants.pkl", b"")
    return file.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param(b"", "an empty file", id="empty"),
        pytest.param(b"<!DOCTYPE html><html>", "a web page: the download gave no file", id="html"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer", id="lfs"),
        pytest.param(b"\x89HDF\r\n", "HDF5", id="keras"),
        pytest.param(b"\x93NUMPY\x01", "NumPy array", id="npy"),
        pytest.param(b"hello, world", "of no known format", id="text"),
        pytest.param(tensorflow_pickle(), r"TensorFlow.*legacy\.py of NVlabs/st", id="tensorflow"),
        pytest.param(torchscript(), "TorchScript", id="torchscript"),
        pytest.param(torch_bytes([1, 2]), "a file with a list", id="a list"),
        pytest.param(torch_bytes({"a": 1}), "unknown names", id="no tensors"),
        pytest.param(
            torch_bytes({"state_dict": {"synthesis.input.freqs": torch.zeros(2)}}),
            "what seems to be StyleGAN3",
            id="stylegan3, state dict",
        ),
        pytest.param(
            torch_bytes({"time_embed.0.weight": torch.zeros(2, 2)}),
            "seems to be a diffusion model",
            id="diffusion",
        ),
        pytest.param(
            torch_bytes({"arch": {}, "param": {}}), "semantic extractor of the LinearGAN", id="LSE"
        ),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_generator(path)


@pytest.mark.parametrize(
    "class_name, key, message",
    [
        ("SynthesisInput", "G_ema", "a StyleGAN3 generator"),
        ("EDMPrecond", "ema", "a diffusion model .EDM.* under 'ema'"),
        ("Whatever", "G_ema", "a network of class Generator"),
    ],
)
def test_other_networks_in_pickles_are_named(tmp_path, class_name, key, message):
    outer, path = Network("Generator"), tmp_path / "x.pkl"
    outer.state["_modules"] = {"synthesis": Network(class_name)}
    with nvlabs_modules():
        path.write_bytes(pickle.dumps({key: outer}, protocol=4))
    with pytest.raises(InputError, match=message):
        load_generator(path)


def test_widths_that_a_file_only_claims(tmp_path):
    """100,000 colors' inputs are a small tensor, but a network of that width is not made."""
    tensors = part(golden("stylegan2_ada_nvlabs_32"), "sd/")
    tensors["synthesis.b32.torgb.weight"] = torch.zeros(3, 100_000, 1, 1)
    path = tmp_path / "x.pt"
    path.write_bytes(torch_bytes(tensors))
    with pytest.raises(InputError, match=r"layers of widths .*100000\]; wanted 1 to 2048"):
        load_generator(path)


def test_training_leftovers_are_read_as_data():
    value = load_plain(torch_bytes({"args": argparse.Namespace(size=32), "step": 1}))
    assert value["args"].size == 32


def test_numpy_values_in_pickles_are_numbers():
    network = network_with(torch.zeros(1))
    network.state |= {"gain": np.sqrt(2), "count": np.int64(3), "window": np.ones(3)}
    module = read_nvlabs(nvlabs_bytes(network))["G_ema"]
    assert module.state["gain"] == 2**0.5 and module.state["count"] == 3


def test_sniffing_goes_by_content(tmp_path):
    path = tmp_path / "ours.pkl"  # the name says otherwise
    write_safetensors(path, {"a": torch.zeros(1)}, {})
    assert sniff(path) == "safetensors"
    for content, kind in (
        (torch_bytes({}), "torch"),
        (torch_bytes({}, zipped=False), "torch"),
        (nvlabs_bytes(network_with(torch.zeros(1))), "nvlabs"),
    ):
        path.write_bytes(content)
        assert sniff(path) == kind
    with pytest.raises(InputError, match="no file at"):
        sniff(tmp_path / "gone")


# Mutations of small files: the result is a network or a sentence, and nothing else.


def small(family: str) -> dict[str, torch.Tensor]:
    """The tensors of a golden file of 32 px, as its own project names them."""
    return part(golden(family), "sd/")


def sources() -> dict:
    """{what: (tensors, how they are written)}."""
    return {
        "pggan": (small("pggan"), lambda t: torch_bytes({"generator_smooth": t})),
        "stylegan": (small("stylegan"), lambda t: torch_bytes({"generator": t}, zipped=False)),
        "rosinality": (
            small("stylegan2_rosinality_32") | {"latent_avg": torch.zeros(24)},
            lambda t: torch_bytes({"g_ema": t}),
        ),
        "nvlabs": (
            small("stylegan2_ada_nvlabs_32"),
            lambda t: nvlabs_bytes(nvlabs_network(t, conv_clamp=256)),
        ),
        "ours": (dict(toys.toy_network("stylegan2").state_dict()), safetensors_bytes),
    }


def safetensors_bytes(tensors: dict) -> bytes:
    dense = {k: v.to_dense().contiguous() for k, v in tensors.items()}
    return save(dense, {"facts": '{"family": "stylegan2"}'})


def flip(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 4, 64))):
        # Most of a file is weights; structure lies at its ends.
        edge = rng.random() < 0.7
        place = rng.randrange(min(4000, len(data))) if edge else rng.randrange(len(data))
        data[-place - 1 if edge and rng.random() < 0.5 else place] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def renamed(tensors: dict, rng: random.Random) -> dict:
    name = rng.choice(list(tensors))
    other = rng.choice([name + "x", name.upper(), name[: len(name) // 2], "", "mlp.0.weight"])
    return {other if k == name else k: v for k, v in tensors.items()}


def reshaped(tensors: dict, rng: random.Random) -> dict:
    name = rng.choice(list(tensors))
    value = tensors[name]
    ways = [
        lambda: value[None],
        lambda: value.flatten(),
        lambda: value.transpose(0, -1) if value.ndim else value[None, None],
        lambda: value[:-1] if value.ndim else torch.zeros(0),
        lambda: torch.zeros(0),
        lambda: torch.zeros(1, 0, 3, 3),
        lambda: torch.cat([value, value]) if value.ndim else torch.zeros(2),
        lambda: value.long(),
        lambda: value.to(torch.complex64),
        lambda: value.to_sparse() if value.ndim else torch.full((), float("nan")),
    ]
    return tensors | {name: rng.choice(ways)()}


def dropped(tensors: dict, rng: random.Random) -> dict:
    gone = rng.choice(list(tensors))
    return {k: v for k, v in tensors.items() if k != gone}


MUTATIONS = int(os.environ.get("FUZZ", "50"))  # of each format


@pytest.mark.parametrize("source", ["pggan", "stylegan", "rosinality", "nvlabs", "ours"])
def test_mutations_give_a_network_or_a_sentence(tmp_path, source):
    tensors, write = sources()[source]
    whole, path, loaded = write(tensors), tmp_path / "x", 0
    rng = random.Random(source)
    for _ in range(MUTATIONS):
        mutate = rng.choice([flip, flip, cut, renamed, reshaped, dropped])
        content = mutate(whole, rng) if mutate in (flip, cut) else write(mutate(tensors, rng))
        path.write_bytes(content)
        try:
            generator = load_generator(path)
            ws = generator.mapping(torch.ones(1, generator.z_dim))
            assert generator.synthesis(ws).shape == (1, 3, 32, 32)
            loaded += 1
        except InputError as error:
            assert error.got and error.wanted and error.remedy
            assert str(path) in str(error)
    assert 0 < loaded < MUTATIONS, "flips within weights load, other mutations do not"
