"""How far a pixel's influence reaches, read off the graph layer by layer."""

from __future__ import annotations

import ast
import json

import mxnet as mx


def receptive_radius(symbol: mx.sym.Symbol) -> int:
    """Bound on the distance, in pixels, at which a pixel still influences a prediction.

    Along each path from ``data``, a window reaches as far as its kernel on its longer side, times
    its dilation, times the stride so far. To the longest path come the place of a cell within its
    feature pixel's block and the interpolation between cells, at most the stride each.

    Parameters
    ----------
    symbol : Symbol
        From :func:`symbols.get_symbol`.
    """
    nodes = json.loads(symbol.tojson())["nodes"]
    reach = [0.0] * len(nodes)  # of each node's output, in pixels of the input
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
    """Return the first of a pair: height's."""
    return ast.literal_eval(node["attrs"].get(attribute, str((default,))))[0]
