"""Read parameters from an ONNX file of this network, such as the model zoo's ResNet101-DUC.

Only tensors are read; the file's graph identifies them and is never run.
"""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
from google.protobuf.message import DecodeError

from data_iter.image_files import check_regular
from train.errors import RunError
from train.network import param_shapes
from train.params import Params

BN_INPUTS = ("gamma", "beta", "moving_mean", "moving_var")  # of ONNX BatchNormalization, after X
INT8 = {"QLinearConv", "ConvInteger", "QuantizeLinear", "DequantizeLinear"}
LAYERS = ("Conv", "ConvTranspose", "BatchNormalization")  # operators whose inputs are parameters


def read_onnx_params(path: Path, symbol: mx.sym.Symbol, side: int) -> tuple[Params, Params]:
    """Read the parameters of ``symbol`` from an ONNX file.

    Parameters are matched by name if the file has all our names, otherwise by the order of the
    convolutions and normalisations in both graphs. Each one's shape is checked.

    Parameters
    ----------
    side : int
        Any input size that the graph accepts, in pixels.

    Raises
    ------
    DataError, RunError
        It is a pipe or not an ONNX file, or a tensor is missing, superfluous or has another shape.
    """
    model = _load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    arguments, states = param_shapes(symbol, side)
    expected = arguments | states
    missing = [name for name in expected if name not in tensors]
    if missing:
        try:
            tensors = _by_order(path, model, tensors, symbol, expected)
        except RunError:
            if len(missing) == len(expected):
                raise
            name = missing[0]  # for a file with our names, this message is more specific
            raise RunError(f"{path}: has no tensor for {name} {expected[name]}") from None
    else:
        _refuse_more(path, model, tensors, expected)
    params: dict[str, mx.nd.NDArray] = {}
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.dims) != shape:
            raise RunError(
                f"{path}: tensor {tensor.name or name} is {tuple(tensor.dims)}, expected {shape} "
                f"for {name}; it is another network"
            )
        try:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        except (ValueError, TypeError) as error:  # fewer bytes than its shape needs
            raise RunError(f"{path}: tensor {tensor.name or name} is damaged ({error})") from None
        params[name] = mx.nd.array(values)
    return (
        {name: params[name] for name in arguments},
        {name: params[name] for name in states},
    )


def _load(path: Path) -> onnx.ModelProto:
    if path.exists():
        check_regular(path)
    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as an ONNX file ({error})") from None
    quantised = {node.op_type for node in model.graph.node} & INT8
    if quantised:
        raise RunError(
            f"{path}: an int8 network ({min(quantised)}), whose parameters are rounded; take the "
            "float file, ResNet101-DUC-7.onnx or -12.onnx"
        )
    if not model.graph.node:
        raise RunError(f"{path}: not an ONNX file, or an empty one")
    return model


def _refuse_more(path: Path, model: onnx.ModelProto, tensors: dict, expected: dict) -> None:
    """Refuse a file whose layers have more tensors than ours, for example a deeper network's."""
    for node in _their_layers(model):
        for name in list(node.input)[1:]:
            if name in tensors and name not in expected:
                raise RunError(
                    f"{path}: tensor {name} {tuple(tensors[name].dims)} is not in the network; "
                    "it is another network"
                )


def _their_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in LAYERS]


def _by_order(
    path: Path, model: onnx.ModelProto, tensors: dict, symbol: mx.sym.Symbol, expected: dict
) -> dict[str, onnx.TensorProto]:
    """Give the file's tensors our names: their n-th layer is our n-th layer.

    A block's projection comes before its branch in our graph and after it in the authors', so both
    orders are tried. The one in which more shapes agree is used.
    """
    theirs, ours = _their_layers(model), _layers(symbol)
    if len(theirs) != len(ours):
        raise RunError(
            f"{path}: has {len(theirs)} convolutions and normalisations, the network {len(ours)}; "
            "it is another network"
        )
    orders = [_paired(path, theirs, order, tensors) for order in (ours, _projections_last(ours))]
    return max(orders, key=lambda named: sum(tuple(named[n].dims) == expected[n] for n in expected))


def _paired(
    path: Path, theirs: list[onnx.NodeProto], ours: list[list[str]], tensors: dict
) -> dict[str, onnx.TensorProto]:
    named = {}
    for node, parameters in zip(theirs, ours):
        inputs = list(node.input)[1:]
        if len(inputs) != len(parameters):
            raise RunError(
                f"{path}: {node.op_type} {node.name} has {len(inputs)} tensors, expected "
                f"{len(parameters)} for {parameters[0]}; it is another network"
            )
        for tensor, parameter in zip(inputs, parameters):
            if tensor not in tensors:
                raise RunError(f"{path}: tensor {tensor} of {node.name} is missing")
            named[parameter] = tensors[tensor]
    return named


def _projections_last(layers: list[list[str]]) -> list[list[str]]:
    """Move each block's projection behind its branch: ``conv2_1_1x1_proj`` ends ``conv2_1``."""
    blocks = ["_".join(parameters[0].split("_")[:2]) for parameters in layers]
    place = {block: number for number, block in reversed([*enumerate(blocks)])}
    order = sorted(
        range(len(layers)), key=lambda n: (place[blocks[n]], "_1x1_proj" in layers[n][0])
    )
    return [layers[number] for number in order]


def _layers(symbol: mx.sym.Symbol) -> list[list[str]]:
    """List the parameter names of each convolution and normalisation, in the graph's order."""
    internals = symbol.get_internals()
    parameters = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    layers = []
    for node in internals:
        names = [f"{node.name}_{kind}" for kind in ("weight", "bias", *BN_INPUTS)]
        present = [name for name in names if name in parameters]
        if present and node.name not in parameters:
            layers.append(present)
    return layers
