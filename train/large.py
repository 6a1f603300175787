"""Sizes at which MXNet's convolution ends the process, and the way round them.

On processors with AVX-512, a 1x1 convolution of MXNet 1.9.1 (oneDNN 2.4.4) was seen to divide by
zero (SIGFPE) where its output has exactly 2^27 or 2^28 numbers, such as the 2048 channels of res5
for a frame of 1024x2048 at downsampling rate 4. With AVX2 alone it does not. A 1x1 convolution
looks at no neighbours, so it may as well be computed some rows at a time: the result is the same.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Mapping

import mxnet as mx

DEADLY = 2**27  # numbers; its multiples are avoided


def split_convolutions(
    symbol: mx.sym.Symbol, shapes: Mapping[str, tuple[int, ...]], training: bool = False
) -> mx.sym.Symbol:
    """Cut the 1x1 convolutions of deadly sizes into parts.

    Parameters
    ----------
    symbol : Symbol
        Any graph.
    shapes : mapping of str to tuple
        Of its inputs: what its shapes follow from.
    training : bool
        Whether there will be a backward pass, whose output is as large as the input.

    Returns
    -------
    Symbol
        The same function of the same parameters; ``symbol`` itself where no size is deadly.
    """
    nodes = json.loads(symbol.tojson(remove_amp_cast=False))["nodes"]
    parts = _parts(symbol, nodes, shapes, training)
    if not parts:
        return symbol
    heads = json.loads(symbol.tojson(remove_amp_cast=False))["heads"]
    kept: list[dict] = []
    place: list[int] = []  # of each old node among the kept ones
    for old, node in enumerate(nodes):
        node["inputs"] = [[place[source], *rest] for source, *rest in node["inputs"]]
        kept += _in_parts(node, parts[old], len(kept)) if old in parts else [node]
        place.append(len(kept) - 1)
    graph = {
        "nodes": kept,
        "arg_nodes": [index for index, node in enumerate(kept) if node["op"] == "null"],
        "heads": [[place[node], *rest] for node, *rest in heads],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    return mx.sym.load_json(json.dumps(graph))


def _parts(
    symbol: mx.sym.Symbol,
    nodes: list[dict],
    shapes: Mapping[str, tuple[int, ...]],
    training: bool,
) -> dict[int, list[int]]:
    """First row of the input that each part of a deadly convolution takes, by its node's number."""
    inner = symbol.get_internals()
    sizes = dict(zip(inner.list_outputs(), inner.infer_shape(**shapes)[1]))
    found = {}
    for number, node in enumerate(nodes):
        if node["op"] != "Convolution" or node["attrs"]["kernel"] != "(1, 1)":
            continue
        source = nodes[node["inputs"][0][0]]
        taken = sizes[source["name"] if source["op"] == "null" else f"{source['name']}_output"]
        made = sizes[f"{node['name']}_output"]
        counts = [_count(made), *([_count(taken)] if training else [])]
        deadly = [count for count in counts if count % DEADLY == 0]
        if deadly:
            parts = 2 * max(deadly) // DEADLY
            stride, _ = literal_eval(node["attrs"].get("stride", "(1, 1)"))
            found[number] = [stride * (made[2] * part // parts) for part in range(parts)]
    return found


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1] * shape[2] * shape[3]


def _in_parts(node: dict, rows: list[int], first: int) -> list[dict]:
    """Nodes that compute ``node``: the last one has its name; ``first`` is the first's number."""
    name, count = node["name"], len(rows)
    data, *params = node["inputs"]
    indices = {"axis": "2", "indices": str(tuple(rows)), "sections": "0", "squeeze_axis": "False"}
    convolutions = [
        {**node, "name": f"{name}/part{part}", "inputs": [[first, part, 0], *params]}
        for part in range(count)
    ]
    return [
        {"op": "_split_v2", "name": f"{name}/rows", "attrs": indices, "inputs": [data]},
        *convolutions,
        {
            "op": "Concat",
            "name": name,
            "attrs": {"num_args": str(count), "dim": "2"},
            "inputs": [[first + 1 + part, 0, 0] for part in range(count)],
        },
    ]
