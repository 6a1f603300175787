"""The graph of inference: no label input, and batch normalisation folded into the convolutions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import mxnet as mx
import numpy as np

from symbols.graph import graph_nodes

Arrays = Mapping[str, mx.nd.NDArray]
# The same function as the operator relu. Only this one is fused into the convolution before it, and
# only this one stays in 8-bit integers.
FUSABLE_RELU = {"op": "Activation", "attrs": {"act_type": "relu"}}


def inference_graph(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Replace the loss of a training graph by a plain softmax over the classes."""
    return mx.sym.softmax(symbol.get_children()[0], axis=1, name="seg_loss")


def fold_batch_norm(
    symbol: mx.sym.Symbol, arg_params: Arrays, aux_params: Arrays
) -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """Fold each batch normalisation into the convolution before it.

    With moving mean m and variance v, ``gamma * (w * x - m) / sqrt(v + eps) + beta`` is a
    convolution with weight ``w * gamma / sqrt(v + eps)`` and bias
    ``beta - m * gamma / sqrt(v + eps)``.

    Parameters
    ----------
    symbol : Symbol
        Each BatchNorm follows a Convolution without bias and is its only reader.
    arg_params, aux_params : mapping of str to NDArray
        Its parameters; they stay as they are.

    Returns
    -------
    symbol : Symbol
        The same function without BatchNorm; ``X_bias`` joins the arguments of convolution X, and
        Activation takes the place of the operator relu.
    arg_params : dict of str to NDArray
        Its parameters; it has no auxiliary states.
    """
    nodes = graph_nodes(symbol)
    norms = {node["inputs"][0][0]: node for node in nodes if node["op"] == "BatchNorm"}
    params, given = dict(arg_params), {**arg_params, **aux_params}
    for convolution, norm in norms.items():
        names = [nodes[source]["name"] for source, *_ in norm["inputs"][1:]]
        weight, bias = (f"{nodes[convolution]['name']}_{kind}" for kind in ("weight", "bias"))
        eps = float(norm["attrs"]["eps"])
        params[weight], params[bias] = _fold(given[weight], [given[name] for name in names], eps)
        for name in names:
            params.pop(name, None)
    return _without_norms(nodes, norms), params


def _without_norms(nodes: list[dict], norms: Mapping[int, dict]) -> mx.sym.Symbol:
    """Leave the nodes of batch normalisations out, and give their convolutions a bias.

    ``norms`` has them by the number of the convolution before each.
    """
    statistics = {source for norm in norms.values() for source, *_ in norm["inputs"][1:]}
    kept: list[dict] = []
    place: dict[int, int] = {}  # old node -> its index among the kept ones
    for old, node in enumerate(nodes):
        if old in statistics:
            continue
        if node["op"] == "BatchNorm":
            place[old] = place[node["inputs"][0][0]]
            continue
        node["inputs"] = [[place[source], *rest] for source, *rest in node["inputs"]]
        if node["op"] == "relu":
            node |= FUSABLE_RELU
        if old in norms:
            kept.append({"op": "null", "name": f"{node['name']}_bias", "inputs": []})
            node["inputs"].append([len(kept) - 1, 0, 0])
            node["attrs"]["no_bias"] = "False"
        place[old] = len(kept)
        kept.append(node)
    graph = {
        "nodes": kept,
        "arg_nodes": [index for index, node in enumerate(kept) if node["op"] == "null"],
        "heads": [[len(kept) - 1, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    return mx.sym.load_json(json.dumps(graph))


def _fold(
    weight: mx.nd.NDArray, norm: Sequence[mx.nd.NDArray], eps: float
) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    gamma, beta, mean, variance = (array.asnumpy().astype(np.float64) for array in norm)
    scale = gamma / np.sqrt(variance + eps)
    bias = beta - mean * scale
    folded = weight.asnumpy() * scale[:, None, None, None]
    return mx.nd.array(folded.astype(np.float32)), mx.nd.array(bias.astype(np.float32))
