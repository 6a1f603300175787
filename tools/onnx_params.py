"""Parameters out of an ONNX file of this network, such as the model zoo's ResNet101-DUC.

Only tensors are read; the file's graph serves to tell which is which, and is never run.
"""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
from google.protobuf.message import DecodeError

from train.errors import RunError
from train.params import Params, param_shapes

BN_INPUTS = ("gamma", "beta", "moving_mean", "moving_var")  # of ONNX BatchNormalization, after X


def read_onnx_params(path: Path, symbol: mx.sym.Symbol, side: int) -> tuple[Params, Params]:
    """Read the parameters of ``symbol`` from an ONNX file.

    By name where the file has our names, otherwise in the order of the convolutions and
    normalisations in both graphs, each held against its expected shape.

    Parameters
    ----------
    side : int
        Any input size that the graph accepts, in pixels.

    Raises
    ------
    RunError
        It is no ONNX file, or a tensor is missing, superfluous or of another shape.
    """
    model = _load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    arguments, states = param_shapes(symbol, side)
    expected = arguments | states
    if not all(name in tensors for name in expected):
        tensors = _by_order(path, model, tensors, symbol)
    params: dict[str, mx.nd.NDArray] = {}
    for name, shape in expected.items():
        if name not in tensors:
            raise RunError(f"{path}: has no tensor for {name} {shape}")
        tensor = tensors[name]
        if tuple(tensor.dims) != shape:
            raise RunError(
                f"{path}: tensor {tensor.name or name} is {tuple(tensor.dims)}, expected {shape} "
                f"for {name}; it is another network"
            )
        params[name] = mx.nd.array(onnx.numpy_helper.to_array(tensor).astype(np.float32))
    return (
        {name: params[name] for name in arguments},
        {name: params[name] for name in states},
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as an ONNX file ({error})") from None
    if not model.graph.node:
        raise RunError(f"{path}: not an ONNX file, or an empty one")
    return model


def _by_order(
    path: Path, model: onnx.ModelProto, tensors: dict, symbol: mx.sym.Symbol
) -> dict[str, onnx.TensorProto]:
    """Give the file's tensors our names: the n-th convolution of theirs is the n-th of ours."""
    theirs = [n for n in model.graph.node if n.op_type in ("Conv", "BatchNormalization")]
    ours = _layers(symbol)
    if len(theirs) != len(ours):
        raise RunError(
            f"{path}: has {len(theirs)} convolutions and normalisations, the network {len(ours)}; "
            "it is another network"
        )
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
