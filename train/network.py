"""A network's graph, and whether parameters fit it."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.schema import Config, Network
from symbols import NetworkError, get_symbol
from symbols.cells import LABEL
from symbols.decoders import DECODERS, Decoder
from symbols.errors import look_up
from symbols.head import OWN

from .errors import RunError
from .params import Params

HEAD = OWN  # prefix of the parameters that solver.head_lr_mult applies to
INPUTS = ("data", LABEL)


def build_symbol(
    config: Config, dataset: DatasetSpec, *, learn_bn: bool = False, training: bool = False
) -> mx.sym.Symbol:
    """Build the graph of ``config`` for the classes of ``dataset``.

    The options are for training: learning the BN statistics; the loss and the class weights of
    ``[solver]``, in place of plain cross-entropy.

    Raises
    ------
    ConfigError
        The configuration names an unknown depth, dilation, decoder or loss.
    """
    solver = config.solver
    weights: tuple = solver.class_weights if training else ()
    if weights == ("auto",):  # not counted yet; the graph is as large
        weights = (1.0,) * dataset.num_classes
    try:
        return get_symbol(
            classes=dataset.num_classes,
            head=dataset.name,
            learn_bn=learn_bn,
            loss=solver.loss if training else "cross_entropy",
            # The release's graph is that of valid; its scale is the optimiser's (train/module.py).
            normalization="fixed" if solver.normalization == "fixed" else "valid",
            ignore_label=dataset.ignore_id,
            class_weights=weights,
            **config.network.graph_options,
        )
    except NetworkError as error:
        section = "solver" if error.key == "loss" else "network"
        raise config.error(section, error.key, error.expected) from None


def decoder_of(network: Network) -> Decoder:
    """Look up the decoder of a configuration."""
    return look_up("decoder", network.decoder, DECODERS)


def cell_layout(network: Network) -> tuple[int, int]:
    """``(cell, block)``: label pixels per prediction, predictions per pixel of the maps (sides)."""
    return decoder_of(network).layout(network.downsample, network.cell)


def check_params(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, source: Path, side: int
) -> None:
    """Check parameters against the graph; ``RunError`` names the first one that does not fit.

    ``side`` is any input size that the graph accepts, in pixels.
    """
    arguments, states = param_shapes(symbol, side)
    expected, found = arguments | states, arg_params | aux_params
    for name, shape in expected.items():
        if name not in found:
            raise RunError(f"{source}: parameter {name} {shape} is missing")
        if found[name].shape != shape:
            raise RunError(f"{source}: {name} is {found[name].shape}, the network has {shape}")
    extra = sorted(found.keys() - expected.keys())
    if extra:
        raise RunError(
            f"{source}: parameter {extra[0]} {found[extra[0]].shape} is not in the network"
        )


def param_shapes(symbol: mx.sym.Symbol, side: int) -> tuple[dict, dict]:
    """Shapes of the arguments except the inputs, and of the auxiliary states, by name.

    ``side`` is any input size that the graph accepts, in pixels.
    """
    shapes, _, aux_shapes = symbol.infer_shape(data=(1, 3, 8 * side, 8 * side))
    arguments = dict(zip(symbol.list_arguments(), shapes))
    for name in INPUTS:
        arguments.pop(name, None)
    return arguments, dict(zip(symbol.list_auxiliary_states(), aux_shapes))
