"""Names of GluonCV's ResNets beside this project's, and what has to change in the values.

GluonCV sees ``(rgb / 255 - mean) / std``, this project ``rgb - 255 mean``: dividing the first
convolution's weights by ``255 std`` makes up for it. Both pad the network's input with zeros, which
is the mean colour for both, so the borders are exact too.
"""

from __future__ import annotations

import re

import mxnet as mx
import numpy as np

from configs.errors import ConfigError
from configs.schema import Network
from symbols import get_symbol
from symbols.resnet import UNITS
from train.errors import RunError
from train.network import param_shapes
from train.params import Params

MEAN_RGB = (123.675, 116.28, 103.53)  # 255 times ImageNet's customary .485 .456 .406
STD_RGB = 255 * np.array([0.229, 0.224, 0.225], np.float64)
STATISTICS = {
    "gamma": "gamma",
    "beta": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_var",
}
BRANCHES = ("1x1_reduce", "3x3", "1x1_increase")
DEPTHS = (50, 101, 152)
NOT_EXACT = {
    "v1c": "its stem has 32, 32 and 64 channels, the paper's 64, 64 and 128",
    "v1d": "its shortcuts begin with an average pooling, which the paper's network does not have",
    "v1e": "its shortcuts begin with an average pooling, which the paper's network does not have",
    "v1b_gn": "it normalises groups of channels, not batches",
    "v2": "it normalises before each convolution, the paper's network after it",
}


def network_options(name: str) -> dict[str, str]:
    """Return the keys of ``[network]`` under which a zoo network's weights mean the same here.

    Raises
    ------
    ConfigError
        The name is no ResNet of the zoo with bottlenecks, or cannot be mapped exactly.
    """
    match = re.fullmatch(r"resnet(\d+)_(v1|v1b|v1s|v1c|v1d|v1e|v2|v1b_gn)", name)
    names = ", ".join(f"resnet{depth}_{kind}" for depth in DEPTHS for kind in ("v1", "v1b", "v1s"))
    if not match:
        raise ConfigError(f"{name}: no such network; expected one of {names}")
    depth, kind = int(match[1]), match[2]
    if kind in NOT_EXACT:
        raise ConfigError(f"{name}: cannot be mapped exactly: {NOT_EXACT[kind]}")
    if depth not in DEPTHS:
        raise ConfigError(f"{name}: no ResNet of bottlenecks; expected one of {names}")
    return {
        "depth": str(depth),
        "stem": "3x3" if kind == "v1s" else "7x7",
        "stride_in": "1x1" if kind == "v1" else "3x3",
        "pool_pad": "1",
        "bn_eps": "1e-5",
        "mean_rgb": ",".join(map(str, MEAN_RGB)),
    }


def convert(name: str, weights: Params, source: str) -> tuple[Params, Params]:
    """Rename and fold the weights of zoo network ``name``.

    Parameters
    ----------
    weights : dict of str to NDArray
        As a ``.params`` file of the zoo has them; its classifier is left out.
    source : str
        Where they come from, for messages.

    Returns
    -------
    arg_params, aux_params : dict of str to NDArray
        The backbone under this project's names.

    Raises
    ------
    RunError
        A tensor is missing, superfluous or of another shape.
    """
    options = network_options(name)
    first = layers_of(name)[0][0]
    shapes = backbone_shapes(options)
    left = dict(weights)

    def take(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in left:
            raise RunError(f"{source}: {name} needs {key}, which it does not have")
        if left[key].shape != shape:
            raise RunError(f"{source}: {key} is {left[key].shape}, {name} has {shape}")
        return left.pop(key).asnumpy()

    args: Params = {}
    auxs: Params = {}
    for ours, convolution, norm in layers_of(name):
        shape = shapes[f"{ours}_weight"]
        weight = take(f"{convolution}.weight", shape)
        if ours == first:
            weight = weight / STD_RGB[:, None, None]
        args[f"{ours}_weight"] = mx.nd.array(weight)
        values = {theirs: take(f"{norm}.{theirs}", shape[:1]) for theirs in STATISTICS}
        if options["stride_in"] == "1x1" and f"{convolution}.bias" in left:
            bias = take(f"{convolution}.bias", shape[:1])
            values["running_mean"] = values["running_mean"] - bias
        for theirs, kind in STATISTICS.items():
            group = auxs if kind.startswith("moving") else args
            group[f"{ours}/bn_{kind}"] = mx.nd.array(values[theirs])
    extra = sorted(key for key in left if not key.startswith(("fc.", "output.")))
    if extra:
        raise RunError(f"{source}: {extra[0]} {left[extra[0]].shape} is not in {name}")
    return args, auxs


def backbone_shapes(options: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of this project's network under ``options``, by name."""
    network = Network(depth=int(options["depth"]), stem=options["stem"], dilation="none")
    symbol = get_symbol(classes=1, head="x", **network.graph_options)
    return param_shapes(symbol, side=8)[0]


def layers_of(name: str) -> list[tuple[str, str, str]]:
    """List (our convolution, their convolution, their batch norm) of zoo network ``name``."""
    options = network_options(name)
    original = options["stride_in"] == "1x1"  # v1 numbers its layers, the others name them
    if options["stem"] == "3x3":
        layers = [
            ("conv1_1_3x3_s2", "conv1.0", "conv1.1"),
            ("conv1_2_3x3", "conv1.3", "conv1.4"),
            ("conv1_3_3x3", "conv1.6", "bn1"),
        ]
    elif original:
        layers = [("conv1_7x7_s2", "features.0", "features.1")]
    else:
        layers = [("conv1_7x7_s2", "conv1", "bn1")]
    for stage, units in enumerate(UNITS[int(options["depth"])], start=2):
        for unit in range(units):
            ours = f"conv{stage}_{unit + 1}"
            theirs = f"features.{stage + 2}.{unit}" if original else f"layer{stage - 1}.{unit}"
            for number, branch in enumerate(BRANCHES):
                pair = (
                    (f"body.{3 * number}", f"body.{3 * number + 1}")
                    if original
                    else (f"conv{number + 1}", f"bn{number + 1}")
                )
                layers.append((f"{ours}_{branch}", *(f"{theirs}.{part}" for part in pair)))
            if unit == 0:
                layers.append(
                    (f"{ours}_1x1_proj", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
                )
    return layers
