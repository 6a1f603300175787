"""Convert another project's ImageNet ResNet to this project's backbone: layers, values, options.

Other projects' networks see ``(rgb / 255 - mean) / std``, this project's ``rgb - 255 mean``.
Dividing the first convolution's weights by ``255 std`` removes the difference. Both pad the
network's input with zeros, which are the mean colour for both, so the borders are exact too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from configs.schema import Network
from symbols import get_symbol
from symbols.resnet import DEPTHS
from train.errors import RunError
from train.network import param_shapes
from train.params import Params

MEAN_RGB = (123.675, 116.28, 103.53)  # 255 times ImageNet's customary .485 .456 .406
STD_RGB = 255 * np.array([0.229, 0.224, 0.225], np.float64)
STEMS = {
    "7x7": ("conv1_7x7_s2",),
    "3x3": ("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3"),
}
Pair = tuple[str, str]  # names of a convolution and of the normalisation after it


@dataclass(frozen=True)
class Naming:
    """Another project's names for the layers of a ResNet."""

    stems: dict[str, tuple[Pair, ...]]
    block: str  # prefix of block {unit}, from 0, of {stage}
    first_stage: int  # its number of the stage that is res2 here
    branches: tuple[Pair, ...]  # of a block, in order
    projection: Pair
    statistics: dict[str, str]  # gamma, beta, moving_mean and moving_var: their names
    classifier: tuple[str, ...]  # prefixes of the layers after the backbone

    def block_name(self, stage: int, unit: int) -> str:
        """Return the prefix of the names of block ``unit``, from 1, of our res-``stage``."""
        return self.block.format(stage=stage - 2 + self.first_stage, unit=unit - 1)


@dataclass(frozen=True)
class Backbone:
    """A ResNet whose weights give the same function here, with :attr:`options`."""

    depth: int
    stem: str  # as network.stem
    stride_in: str = "3x3"  # as network.stride_in

    @property
    def options(self) -> dict[str, str]:
        """The keys of ``[network]`` that belong to the weights."""
        # A basic block has only one convolution that can have the stride.
        stride = {} if DEPTHS[self.depth].basic else {"stride_in": self.stride_in}
        return {
            "depth": str(self.depth),
            "stem": self.stem,
            **stride,
            "pool_pad": "1",
            "bn_eps": "1e-5",
            "mean_rgb": ",".join(map(str, MEAN_RGB)),
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of this project's network, by name."""
        network = Network(depth=self.depth, stem=self.stem, dilation="none", aspp=(1,))
        symbol = get_symbol(classes=1, head="x", **network.graph_options)
        return param_shapes(symbol, side=8)[0]

    def layers(self, naming: Naming) -> Iterator[tuple[str, Pair]]:
        """Yield each of our convolutions, in order, with the other project's names."""
        yield from zip(STEMS[self.stem], naming.stems[self.stem])
        basic = DEPTHS[self.depth].basic
        branches = ("3x3_1", "3x3_2") if basic else ("1x1_reduce", "3x3", "1x1_increase")
        for stage, units in enumerate(DEPTHS[self.depth].units, start=2):
            for unit in range(1, units + 1):
                pairs = dict(zip(branches, naming.branches))
                if unit == 1 and (stage > 2 or not basic or self.stem == "3x3"):
                    pairs["1x1_proj"] = naming.projection
                begin = naming.block_name(stage, unit)
                for branch, (convolution, norm) in pairs.items():
                    yield f"conv{stage}_{unit}_{branch}", (begin + convolution, begin + norm)


def convert(
    backbone: Backbone, naming: Naming, arrays: dict[str, np.ndarray], source: str, network: str
) -> tuple[Params, Params]:
    """Rename a backbone's arrays, and fold the other project's input scaling into them.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Of any float type, under the names of ``naming``; a classifier is left out.
    source, network : str
        Their source and their expected network, for messages.

    Returns
    -------
    arg_params, aux_params : dict of str to NDArray
        The backbone under this project's names.

    Raises
    ------
    RunError
        An array is missing, superfluous, has another shape, or holds invalid values.
    """
    shapes = backbone.shapes()
    left = dict(arrays)

    def take(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in left:
            raise RunError(f"{source}: {network} needs {key}, which it does not have")
        if left[key].shape != shape:
            raise RunError(f"{source}: {key} is {left[key].shape}, {network} has {shape}")
        values = left.pop(key).astype(np.float32)
        if not np.isfinite(values).all():
            raise RunError(
                f"{source}: {key} holds {np.count_nonzero(~np.isfinite(values))} values that are "
                "no numbers (NaN or infinite); the file is damaged, or its training was"
            )
        return values

    args: Params = {}
    auxs: Params = {}
    for ours, (convolution, norm) in backbone.layers(naming):
        shape = shapes[f"{ours}_weight"]
        weight = take(f"{convolution}.weight", shape)
        if ours == STEMS[backbone.stem][0]:
            weight = weight / STD_RGB[:, None, None]
        args[f"{ours}_weight"] = mx.nd.array(weight)
        values = {
            kind: take(f"{norm}.{theirs}", shape[:1]) for kind, theirs in naming.statistics.items()
        }
        if (values["moving_var"] < 0).any():
            raise RunError(f"{source}: {norm}.{naming.statistics['moving_var']} is below 0")
        if f"{convolution}.bias" in left:  # GluonCV's v1; the mean is subtracted from it anyway
            values["moving_mean"] = values["moving_mean"] - take(f"{convolution}.bias", shape[:1])
        for kind, value in values.items():
            group = auxs if kind.startswith("moving") else args
            group[f"{ours}/bn_{kind}"] = mx.nd.array(value)
    extra = sorted(key for key in left if not key.startswith(naming.classifier))
    if extra:
        raise RunError(f"{source}: {extra[0]} {left[extra[0]].shape} is not in {network}")
    return args, auxs
