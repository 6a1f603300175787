"""The distance at which a pixel still influences a prediction, computed from the graph's layers."""

from __future__ import annotations

import ast

import mxnet as mx

from .graph import graph_nodes


def receptive_radius(symbol: mx.sym.Symbol) -> int:
    """Bound on the distance, in pixels, at which a pixel still influences a prediction.

    Along each path from ``data``, every layer adds the reach of its kernel (the longer side) x its
    dilation x the stride so far. The bound is the longest path plus two strides: one for the place
    of a cell within its feature pixel's block, one for the interpolation between cells.

    Parameters
    ----------
    symbol : Symbol
        From :func:`symbols.get_symbol`.
    """
    nodes = graph_nodes(symbol)
    reach = [0.0] * len(nodes)  # per node: of its output, in pixels of the input
    stride = [1.0] * len(nodes)
    for index, node in enumerate(nodes):
        sources = [source for source, *_ in node["inputs"]]
        if not sources:
            continue
        reach[index] = max(reach[source] for source in sources)
        stride[index] = max(stride[source] for source in sources)
        if node["op"] == "Deconvolution":
            reach[index] += stride[index]  # a kernel of two strides: the feature pixel on each side
            stride[index] /= _side(node, "stride")
        elif node["op"] in ("Convolution", "Pooling"):
            window = (_side(node, "kernel") - 1) * _side(node, "dilate")
            pad = _side(node, "pad", 0)
            reach[index] += max(pad, window - pad) * stride[index]
            stride[index] *= _side(node, "stride")
    return round(max(reach) + 2 * max(stride))


def _side(node: dict, attribute: str, default: int = 1) -> int:
    """Return the first number of a pair, that of the height."""
    return ast.literal_eval(node["attrs"].get(attribute, str((default,))))[0]
