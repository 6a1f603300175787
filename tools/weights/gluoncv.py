"""The ResNets of GluonCV's model zoo: the ones that fit this project, and their layers' names."""

from __future__ import annotations

import re
from pathlib import Path

from configs.errors import ConfigError
from train.errors import RunError
from train.params import Params, read_arrays

from .backbone import Backbone, Naming, convert

STATISTICS = {
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
NAMED = Naming(  # v1b and v1s have torchvision's layer names
    stems={
        "7x7": (("conv1", "bn1"),),
        "3x3": (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")),
    },
    block="layer{stage}.{unit}.",
    first_stage=1,
    branches=(("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    projection=("downsample.0", "downsample.1"),
    statistics=STATISTICS,
    classifier=("fc.",),
)
NUMBERED = Naming(  # v1 numbers them
    stems={"7x7": (("features.0", "features.1"),)},
    block="features.{stage}.{unit}.",
    first_stage=4,
    branches=(("body.0", "body.1"), ("body.3", "body.4"), ("body.6", "body.7")),
    projection=("downsample.0", "downsample.1"),
    statistics=STATISTICS,
    classifier=("output.",),
)
NAMES = (
    *(f"resnet{depth}_{kind}" for depth in (18, 34) for kind in ("v1", "v1b")),
    *(f"resnet{depth}_{kind}" for depth in (50, 101, 152) for kind in ("v1", "v1b", "v1s")),
)
NOT_EXACT = {
    "v1c": "its stem has 32, 32 and 64 channels, the paper's 64, 64 and 128",
    "v1d": "its shortcuts begin with an average pooling, which the paper's network does not have",
    "v1e": "its shortcuts begin with an average pooling, which the paper's network does not have",
    "v1b_gn": "it normalises groups of channels, not batches",
    "v2": "it normalises before each convolution, the paper's network after it",
}


def zoo_backbone(name: str) -> Backbone:
    """Return the network of this project that equals a zoo network.

    Raises
    ------
    ConfigError
        The name is not a ResNet of the zoo, or its network cannot be mapped exactly.
    """
    match = re.fullmatch(r"resnet(\d+)_(v\w+)", name)
    if match and match[2] in NOT_EXACT:
        raise ConfigError(f"{name}: cannot be mapped exactly: {NOT_EXACT[match[2]]}")
    if not match or name not in NAMES:
        raise ConfigError(f"{name}: no such network; expected one of {', '.join(NAMES)}")
    kind = match[2]
    return Backbone(
        depth=int(match[1]),
        stem="3x3" if kind == "v1s" else "7x7",
        stride_in="1x1" if kind == "v1" else "3x3",
    )


def read_zoo(name: str, file: Path | None) -> tuple[Backbone, tuple[Params, Params]]:
    """Read zoo network ``name`` from ``file``, or from gluoncv's own download, and convert it.

    Raises
    ------
    ConfigError, RunError
        As :func:`zoo_backbone` and :func:`tools.weights.backbone.convert`; the download failed.
    """
    backbone = zoo_backbone(name)
    if file is None:
        try:
            from gluoncv.model_zoo.model_store import get_model_file  # refuses PyTorch 2 beside it

            file = Path(get_model_file(name))
        except Exception as error:  # whatever gluoncv and its network library raise
            cause = " ".join(str(error).split())
            raise RunError(
                f"{name}: gluoncv could not download it ({cause}); give --params FILE"
            ) from None
    arrays = {key: value.asnumpy() for key, value in read_arrays(file).items()}
    naming = NUMBERED if name.endswith("_v1") else NAMED
    return backbone, convert(backbone, naming, arrays, str(file), name)
