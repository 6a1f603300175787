"""Write a network in 8-bit integers as an ONNX file for other libraries.

Each quantised tensor passes through QuantizeLinear and DequantizeLinear (QDQ, opset 13 and later);
ONNX Runtime, OpenVINO and TensorRT fuse these into integer layers. Activations have one scale each,
unsigned after a ReLU; weights are signed, of 7 bits, with a scale for each output channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tools.inference.onnx import export
from tools.inference.quantization import segmenter_of
from tools.inference.run import RunParts

# Without VNNI, processors add two products of 8-bit numbers in 16 bits: 2 * 255 * 64 still fits.
LARGEST_WEIGHT = 64
QUANTISED = ("Conv", "Add", "MaxPool")  # operators that read 8-bit integers
Ranges = dict[str, tuple[float, float]]


def export_int8(
    run: RunParts, file: Path, images: list[np.ndarray], in_float: Iterable[str]
) -> None:
    """Write the network of a float run as an int8 ONNX file; needs ONNX Runtime.

    Parameters
    ----------
    run : RunParts
        From :func:`tools.inference.run.read_run`.
    file : Path
        Where to write.
    images : list of ndarray
        (H, W, 3) uint8 RGB for calibration: the range of a tensor is that of its values on them.
    in_float : iterable of str
        Regular expressions; a layer whose convolution's name begins with one stays in float.
    """
    export(run, file)
    model = onnx.load(str(file))
    segmenter = segmenter_of(run)
    names = activations(model.graph, in_float)
    ranges = observe(file, names, map(segmenter.network_input, images))
    quantise(model, ranges, in_float)
    onnx.save(model, str(file))
    onnx.checker.check_model(str(file), full_check=True)


def activations(graph: onnx.GraphProto, in_float: Iterable[str]) -> list[str]:
    """Name the tensors to quantise: the inputs of quantised layers and of their sums.

    The head's scores stay in float, as do layers whose convolution's name begins with one of
    ``in_float``.
    """
    made = {node.output[0]: node for node in graph.node}
    found: dict[str, None] = {}  # in order, each once
    for node in graph.node:
        if node.op_type in QUANTISED and not _stays(node, in_float):
            inputs = node.input if node.op_type == "Add" else node.input[:1]
            found |= dict.fromkeys(inputs)
    return [name for name in found if name not in made or not _stays(made[name], in_float)]


def observe(file: Path, names: list[str], inputs: Iterable[np.ndarray]) -> Ranges:
    """Return the smallest and largest value of each tensor over ``inputs``, by ONNX Runtime.

    Each input is (1, 3, H, W) float32. Only the extremes leave the graph, not the tensors.
    """
    import onnxruntime  # an extra, which the caller has found

    model = onnx.load(str(file))
    del model.graph.output[:]
    for name in names:
        for kind in ("Min", "Max"):
            node = helper.make_node(f"Reduce{kind}", [name], [f"{name}/{kind}"], keepdims=0)
            model.graph.node.append(node)
            value = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, ())
            model.graph.output.append(value)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    seen = np.array([session.run(None, {"data": data}) for data in inputs])
    low, high = seen[:, 0::2].min(axis=0), seen[:, 1::2].max(axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}


def quantise(model: onnx.ModelProto, ranges: Ranges, in_float: Iterable[str]) -> None:
    """Put QDQ into a float model of :func:`tools.inference.onnx.export`, in place."""
    graph = model.graph
    weights = {initializer.name: initializer for initializer in graph.initializer}
    inserted: dict[str, list[onnx.NodeProto]] = {}
    scales = {}
    for name, (low, high) in ranges.items():
        dtype, scale = _activation_scale(low, high)
        scales[name] = scale
        graph.initializer.extend(_constants(name, np.float32(scale), np.zeros((), dtype)))
        inserted[name] = _pair(name)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in ranges and not _stays(node, in_float):
            nodes += _quantise_weights(graph, node, weights, scales[node.input[0]])
        if node.op_type in QUANTISED and not _stays(node, in_float):
            for place, name in enumerate(node.input):
                if name in ranges:
                    node.input[place] = f"{name}/dequantised"
    nodes += inserted.pop("data", [])
    for node in graph.node:
        nodes += [node, *(part for name in node.output for part in inserted.get(name, []))]
    del graph.node[:]
    graph.node.extend(nodes)


def _stays(node: onnx.NodeProto, patterns: Iterable[str]) -> bool:
    return node.op_type == "Conv" and any(re.match(p, node.output[0]) for p in patterns)


def _activation_scale(low: float, high: float) -> tuple[type, float]:
    """Type and scale with zero point 0; a tensor of zeros gets an arbitrary scale."""
    if low >= 0:
        return np.uint8, high / 255 or 1.0
    return np.int8, max(-low, high) / 127


def _quantise_weights(
    graph: onnx.GraphProto, node: onnx.NodeProto, weights: dict, input_scale: float
) -> list[onnx.NodeProto]:
    """Replace a convolution's weights by int8 and its bias by int32, and dequantise both."""
    weight, bias = (numpy_helper.to_array(weights[name]) for name in node.input[1:])
    scale = np.abs(weight).max(axis=(1, 2, 3)) / LARGEST_WEIGHT
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    rounded = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
    limit = 2**31 - 129  # the largest float32 below 2^31
    whole = np.rint(bias / bias_scale.astype(np.float64)).clip(-limit, limit).astype(np.int32)
    made = []
    for name, values, factors in (
        (node.input[1], rounded, scale),
        (node.input[2], whole, bias_scale),
    ):
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(values, f"{name}/integers"))
        graph.initializer.extend(_constants(name, factors, np.zeros(len(factors), values.dtype)))
        inputs = [f"{name}/integers", f"{name}/scale", f"{name}/zero"]
        output = f"{name}/dequantised"
        made.append(helper.make_node("DequantizeLinear", inputs, [output], output, axis=0))
    node.input[1], node.input[2] = f"{node.input[1]}/dequantised", f"{node.input[2]}/dequantised"
    return made


def _constants(name: str, scale: np.ndarray, zero: np.ndarray) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(np.asarray(scale), f"{name}/scale"),
        numpy_helper.from_array(zero, f"{name}/zero"),
    ]


def _pair(name: str) -> list[onnx.NodeProto]:
    constants = [f"{name}/scale", f"{name}/zero"]
    integers, floats = f"{name}/quantised", f"{name}/dequantised"
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [integers], integers),
        helper.make_node("DequantizeLinear", [integers, *constants], [floats], floats),
    ]
