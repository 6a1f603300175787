"""Avoid the sizes at which MXNet's 1x1 convolution crashes the process.

On processors with AVX-512, MXNet 1.9.1 (oneDNN 2.4.4) divides by zero (SIGFPE) while it prepares a
1x1 convolution for inference. Its estimate of a blocking (``brg_blocking_t::est_eff_1x1`` of
``jit_brgemm_conv_utils.cpp``) divides by rows * (rows * columns) * blocks of channels, an int of 32
bits, and at some sizes that is a multiple of 2^32: the 2048 channels of res5 for a frame of
1024x2048 at downsampling rate 4, or 241 to 256 channels of 512x1024. This holds in fp32, bf16 and
int8. A 1x1 convolution uses no neighbours, so it can be computed some rows at a time with the same
result.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Mapping
from typing import NamedTuple

import mxnet as mx

from symbols.graph import as_json

OVERFLOW = 2**32
BLOCKS = (16, 32, 48, 64)  # of channels, that oneDNN tries
FUSED = "_sg_mkldnn_conv"  # a convolution with what was fused into it, as in every int8 graph


class Cut(NamedTuple):
    """How a convolution is cut: into ``parts`` that give ``rows`` rows together."""

    parts: int
    rows: int

    def begins(self, stride: int = 1) -> list[int]:
        """First row of each part, of an input that has ``stride`` rows for each of the output."""
        return [stride * (self.rows * part // self.parts) for part in range(self.parts)]


def split_convolutions(
    symbol: mx.sym.Symbol,
    shapes: Mapping[str, tuple[int, ...]],
    training: bool = False,
) -> mx.sym.Symbol:
    """Split the 1x1 convolutions of crashing sizes into parts.

    Parameters
    ----------
    symbol : Symbol
        Any graph.
    shapes : mapping of str to tuple
        Shapes of its inputs, from which all others follow.
    training : bool
        Whether there will be a backward pass, whose output is as large as the input.

    Returns
    -------
    Symbol
        The same function of the same parameters; ``symbol`` itself if no size crashes.
    """
    saved = json.loads(as_json(symbol))
    nodes = saved["nodes"]
    cuts = _cuts(symbol, nodes, shapes, training)
    if not cuts:
        return symbol
    kept: list[dict] = []
    whole: list[int] = []  # place of each old node among the kept ones: of its first output
    others: list[int] = []  # and of its other outputs

    def moved(source: int, output: int, *rest: int) -> list[int]:
        return [(others if output else whole)[source], output, *rest]

    for old, node in enumerate(nodes):
        node["inputs"] = [moved(*source) for source in node["inputs"]]
        kept += _in_parts(node, cuts[old], len(kept)) if old in cuts else [node]
        whole.append(len(kept) - 1)
        others.append(len(kept) - 2 if old in cuts else len(kept) - 1)  # each part has the same
    graph = {
        "nodes": kept,
        "arg_nodes": [index for index, node in enumerate(kept) if node["op"] == "null"],
        "heads": [moved(*head) for head in saved["heads"]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    return mx.sym.load_json(json.dumps(graph))


def _cuts(
    symbol: mx.sym.Symbol,
    nodes: list[dict],
    shapes: Mapping[str, tuple[int, ...]],
    training: bool,
) -> dict[int, Cut]:
    """Say how each deadly convolution is cut, by its node's number."""
    found = {number: inner for number, node in enumerate(nodes) if (inner := _pointwise(node))}
    if not found:
        return {}
    inner = symbol.get_internals()
    sizes = dict(zip(inner.list_outputs(), inner.infer_shape(**shapes)[1]))
    cuts = {}
    for number in found:
        source = nodes[nodes[number]["inputs"][0][0]]
        taken = source["name"] if source["op"] == "null" else f"{source['name']}_output"
        made = sizes[f"{nodes[number]['name']}_output"]
        deadly = [shape for shape in (made, *([sizes[taken]] if training else [])) if _dies(shape)]
        if deadly:
            cuts[number] = Cut(max(map(_parts, deadly)), made[2])
    return cuts


def _dies(shape: tuple[int, ...]) -> bool:
    return any(_product(shape, block) % OVERFLOW == 0 for block in BLOCKS)


def _parts(shape: tuple[int, ...]) -> int:
    """Count the parts that are each too small for an overflow."""
    batch, channels, rows, columns = shape
    parts = 2
    while _product((batch, channels, -(-rows // parts), columns), min(BLOCKS)) >= OVERFLOW:
        parts += 1
    return parts


def _product(shape: tuple[int, ...], block: int) -> int:
    _, channels, rows, columns = shape
    return rows * rows * columns * -(-channels // block)


def _pointwise(node: dict) -> dict | None:
    """Return the attributes of the 1x1 convolution that a node is, or has inside."""
    inside = node["subgraphs"][0]["nodes"] if node["op"] == FUSED else [node]
    for one in inside:
        if one["op"] == "Convolution" and one["attrs"]["kernel"] == "(1, 1)":
            return one["attrs"]
    return None


def _in_parts(node: dict, cut: Cut, first: int) -> list[dict]:
    """Nodes that compute ``node``: the last one has its name; ``first`` is the first's number."""
    attrs = _pointwise(node)
    stride, _ = literal_eval(attrs.get("stride", "(1, 1)"))
    strides = {0: stride}  # of the inputs that have rows
    if (
        node.get("attrs", {}).get("with_sum") == "true"
    ):  # fused: what is added comes after the parameters
        strides[3 if attrs.get("no_bias", "False") == "False" else 2] = 1
    name, made = node["name"], []
    for place, step in strides.items():
        begins = str(tuple(cut.begins(step)))
        rows = {"axis": "2", "indices": begins, "sections": "0", "squeeze_axis": "False"}
        made.append(
            {"op": "_split_v2", "name": f"{name}/rows{place}", "attrs": rows,
             "inputs": [node["inputs"][place]]}
        )  # fmt: skip
    splits = dict(zip(strides, range(first, first + len(strides))))
    for part in range(cut.parts):
        inputs = [
            [splits[place], part, 0] if place in splits else source
            for place, source in enumerate(node["inputs"])
        ]
        made.append({**node, "name": f"{name}/part{part}", "inputs": inputs})
    begin = first + len(strides)
    together = [[begin + part, 0, 0] for part in range(cut.parts)]
    attrs = {"num_args": str(cut.parts), "dim": "2"}
    return [*made, {"op": "Concat", "name": name, "attrs": attrs, "inputs": together}]
