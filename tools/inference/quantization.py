"""Networks in 8-bit integers (int8) or 16-bit floats (bf16), for MXNet on the CPU."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
from mxnet.contrib import amp, quantization

from symbols.graph import graph_nodes
from tools.inference.run import RunParts
from train.errors import RunError
from train.folding import fold_batch_norm, inference_graph
from train.run_dir import new_run
from train.segmenter import Segmenter

BACKEND = "MKLDNN_QUANTIZE"


def folded(run: RunParts) -> RunParts:
    """Return a run whose symbol and parameters are the folded graph of inference."""
    if run.ready:
        raise RunError(f"{run.path}: int8 or bf16 already; start from the original")
    graph, params = fold_batch_norm(inference_graph(run.symbol), run.arg_params, run.aux_params)
    return dataclasses.replace(run, symbol=graph, arg_params=params, aux_params={}, ready=True)


def to_int8(run: RunParts, images: list[np.ndarray], in_float: Iterable[str]) -> RunParts:
    """Quantise a folded run.

    Parameters
    ----------
    run : RunParts
        From :func:`folded`.
    images : list of ndarray
        (H, W, 3) uint8 RGB for calibration: the range of a layer is that of its outputs on them.
    in_float : iterable of str
        Regular expressions; a layer whose convolution's name begins with one stays in float.
    """
    segmenter = segmenter_of(run)
    height, width = images[0].shape[:2]
    same = [cv2.resize(image, (width, height)) for image in images]
    data = np.concatenate([segmenter.network_input(image) for image in same])
    fused = signed_sums(run.symbol).get_backend_symbol(BACKEND)
    symbol, args, auxs = quantization.quantize_model(
        fused,
        run.arg_params,
        run.aux_params,
        label_names=(),
        ctx=mx.cpu(),
        excluded_sym_names=nodes_of(fused, in_float),
        calib_mode="naive",
        calib_data=mx.io.NDArrayIter(data, batch_size=1),
        quantized_dtype="auto",
        quantize_granularity="channel-wise",
    )
    symbol = symbol.get_backend_symbol(BACKEND)
    return dataclasses.replace(run, symbol=symbol, arg_params=args, aux_params=auxs)


def signed_sums(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Keep the ReLU of a block with a projection out of the fused convolutions.

    If the sum of two convolutions is fused with a ReLU, it is stored as unsigned, and MXNet cuts
    off the projection's negative values before they are added. The operator relu is the same
    function but is not fused.
    """
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    for node in nodes:
        if node["op"] == "Activation":
            total = nodes[node["inputs"][0][0]]
            parts = [nodes[source]["op"] for source, *_ in total["inputs"]]
            if total["op"] == "elemwise_add" and parts == ["Convolution", "Convolution"]:
                node["op"] = "relu"
                del node["attrs"]
    return mx.sym.load_json(json.dumps(graph))


def nodes_of(fused: mx.sym.Symbol, patterns: Iterable[str]) -> list[str]:
    """Name the fused nodes whose convolution's name begins with one of ``patterns``."""
    names = []
    for node in graph_nodes(fused):
        inner = [part["name"] for graph in node.get("subgraphs", []) for part in graph["nodes"]]
        if any(re.match(pattern, name) for pattern in patterns for name in (node["name"], *inner)):
            names.append(node["name"])
    return names


def to_bf16(run: RunParts) -> RunParts:
    """Let a folded run's convolutions compute in bfloat16; its parameters do not change."""
    symbol, args, auxs = amp.convert_model(
        run.symbol, dict(run.arg_params), dict(run.aux_params), "bfloat16"
    )
    return dataclasses.replace(run, symbol=symbol, arg_params=args, aux_params=auxs)


def segmenter_of(run: RunParts) -> Segmenter:
    """Load a run into MXNet on the CPU."""
    return Segmenter(run.symbol, run.arg_params, run.aux_params, run.config.network, mx.cpu())


def write_inference_run(out: Path, run: RunParts, epoch: int, onnx: Path | None = None) -> None:
    """Write a run folder with a graph of inference, and the same network as an ONNX file."""
    with new_run(out) as made:
        made.create(run.config, run.dataset)
        made.save_inference_graph(run.symbol)
        if run.long_side:
            made.note_long_side(run.long_side)
        made.save_params(epoch, (run.arg_params, run.aux_params))
        if onnx:
            shutil.copyfile(onnx, made.inference_onnx)
