"""OpenVINO IR version 10 read as data: an XML graph whose constants lie in a binary file."""

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import InputError

DTYPES = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4"}


@dataclass(frozen=True)
class Node:
    """One layer of the graph; constants carry where their bytes lie."""

    id: str
    name: str
    type: str
    data: dict[str, str]


class Graph:
    """Nodes, edges and constants of one network, in topological order."""

    def __init__(self, xml: bytes, weights: bytes):
        try:
            root = ElementTree.fromstring(xml)
        except ElementTree.ParseError as error:
            raise InputError(
                f"XML that does not parse ({error})", "an OpenVINO IR", "fetch the file again"
            ) from error
        layers, edges = root.find("layers"), root.find("edges")
        if root.tag != "net" or root.get("version") != "10" or layers is None or edges is None:
            raise InputError(
                f"<{root.tag} version={root.get('version')!r}>",
                '<net version="10">',
                "check that the file is an OpenVINO IR",
            )
        self._weights = weights
        self._nodes: dict[str, Node] = {}
        self._inputs: dict[str, list[str]] = defaultdict(list)
        self._consumers: dict[str, list[str]] = defaultdict(list)
        for layer in layers:
            data = layer.find("data")
            attributes = {} if data is None else dict(data.attrib)
            names = layer.attrib
            node = Node(names["id"], names["name"], names["type"], attributes)
            self._nodes[node.id] = node
        for edge in sorted(edges, key=lambda e: int(e.attrib["to-port"])):
            source, target = edge.attrib["from-layer"], edge.attrib["to-layer"]
            self._inputs[target].append(source)
            self._consumers[source].append(target)
        self._by_name = {node.name: node for node in self._nodes.values()}

    def operations(self, kind: str) -> list[Node]:
        """All nodes of a type, in graph order."""
        return [node for node in self._nodes.values() if node.type == kind]

    def named(self, name: str) -> Tensor:
        """The constant called `name`."""
        if name not in self._by_name:
            raise InputError(f"a graph without {name}", "that constant", "check the file's network")
        return self.constant(self._by_name[name])

    def constant(self, node: Node) -> Tensor:
        """A constant's value; InputError if the binary file is too short or the type unknown."""
        if node.type != "Const" or node.data.get("element_type") not in DTYPES:
            raise InputError(f"{node.type} {node.name}", "a numeric constant", "check the file")
        dtype = np.dtype(DTYPES[node.data["element_type"]])
        shape = [int(n) for n in node.data["shape"].split(",") if n.strip()]
        start, size = int(node.data["offset"]), int(node.data["size"])
        if start + size > len(self._weights) or size != dtype.itemsize * int(np.prod(shape)):
            raise InputError(
                f"{len(self._weights)} bytes of weights, of which {node.name} wants "
                f"{size} at {start}",
                "a complete .bin file",
                "fetch the file again",
            )
        values = np.frombuffer(self._weights, dtype, size // dtype.itemsize, start)
        return torch.from_numpy(values.reshape(shape).copy())

    def constant_input(self, node: Node) -> Tensor:
        """The value of the one constant that feeds `node`, through reshapes if need be."""
        for source in self._inputs[node.id]:
            found = self._nodes[source]
            if found.type == "Const":
                return self.constant(found)
        for source in self._inputs[node.id]:
            if self._nodes[source].type in {"Reshape", "Unsqueeze"}:
                return self.constant_input(self._nodes[source])
        raise InputError(f"{node.type} {node.name} without a constant", "one", "check the file")

    def consumer(self, node: Node, kind: str) -> Node:
        """The one node of type `kind` that reads `node`."""
        found = [self._nodes[i] for i in self._consumers[node.id] if self._nodes[i].type == kind]
        if len(found) != 1:
            raise InputError(
                f"{node.name} read by {len(found)} {kind} nodes", "exactly one", "check the file"
            )
        return found[0]

    def style_gain(self, bias_name: str) -> Tensor:
        """The constant that multiplies a style after its bias and reshape; 1 if there is none."""
        add = self.consumer(self._by_name[bias_name], "Add")
        reshape = self.consumer(add, "Reshape")
        multiply = self.consumer(reshape, "Multiply")
        for source in self._inputs[multiply.id]:
            if self._nodes[source].type == "Const":
                return self.constant(self._nodes[source]).reshape(())
        return torch.ones(())
