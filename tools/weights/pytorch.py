"""Read ResNets from PyTorch checkpoints, with the names of torchvision and timm, or transformers.

The arrays of a file show its network. They do not show where a bottleneck strides (in all three
projects: in the 3x3), anti-aliased pooling (timm's blur and aa variants), and preprocessing
(usually ImageNet's mean and standard deviation, RGB).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from symbols.resnet import DEPTHS
from train.errors import RunError
from train.params import Params

from .arrays import read_checkpoint
from .backbone import Backbone, Naming, convert
from .gluoncv import NAMED

STATISTICS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
TORCHVISION = replace(NAMED, statistics=STATISTICS)
TRANSFORMERS = Naming(
    stems={"7x7": (("embedder.embedder.convolution", "embedder.embedder.normalization"),)},
    block="encoder.stages.{stage}.layers.{unit}.",
    first_stage=0,
    branches=tuple((f"layer.{n}.convolution", f"layer.{n}.normalization") for n in range(3)),
    projection=("shortcut.convolution", "shortcut.normalization"),
    statistics=STATISTICS,
    classifier=(),
)
CLASSIFIER = re.compile(r"(\w+\.)*(fc|classifier|classifier\.1|head)\.(weight|bias)")
STEM = (64, 64, 128)  # channels of the three 3x3 convolutions (section 4.1.4)


def read_pytorch(file: Path) -> tuple[Backbone, tuple[Params, Params], list[str]]:
    """Read the checkpoint of a classifying ResNet, and convert its backbone.

    Returns
    -------
    Backbone
        The network in the file.
    tuple of two dicts
        Its arguments and auxiliary states under this project's names.
    list of str
        Notes for the user: what was unwrapped, widened or left out.

    Raises
    ------
    ConfigError, RunError
        The file can't be read, or its network can't be mapped exactly.
    """
    arrays, notes = read_checkpoint(file)
    naming, prefix = _find_naming(arrays, file)
    if prefix:
        notes.append(f"'{prefix}' is taken off the names")
    inner: dict[str, np.ndarray] = {}
    for key, value in sorted(arrays.items()):
        if CLASSIFIER.fullmatch(key) and value.ndim <= 2:
            if value.ndim == 2:
                notes.append(f"the classifier of {len(value)} classes is left out")
        elif key.startswith(prefix):
            inner[key[len(prefix) :]] = value
        else:
            raise RunError(
                f"{file}: {key} {value.shape} stands beside the backbone ({prefix}...); expected a "
                "network that classifies, this is a detector's or another's checkpoint"
            )
    if why := _difference(inner, naming):
        raise RunError(f"{file}: cannot be mapped exactly: {why}")
    backbone = Backbone(
        depth=_find_depth(inner, naming, file), stem="3x3" if "conv1.0.weight" in inner else "7x7"
    )
    network = f"ResNet-{backbone.depth}"
    return backbone, convert(backbone, naming, inner, str(file), network), notes


def _find_naming(arrays: dict[str, np.ndarray], file: Path) -> tuple[Naming, str]:
    """Find the project whose names the arrays have, and the prefix of these names."""
    for naming in (TORCHVISION, TRANSFORMERS):
        first = f"{naming.block_name(2, 1)}{naming.branches[0][0]}.weight"
        prefixes = [key[: -len(first)] for key in arrays if f".{key}".endswith(f".{first}")]
        if len(prefixes) > 1:
            raise RunError(
                f"{file}: holds several networks, named {prefixes[0]}... and {prefixes[1]}...; "
                "expected one"
            )
        if prefixes:
            return naming, prefixes[0]
    if any(key.endswith("stages.0.blocks.0.norm1.weight") for key in arrays):
        raise RunError(
            f"{file}: cannot be mapped exactly: it normalises before each convolution (v2), the "
            "paper's network after it"
        )
    raise RunError(
        f"{file}: no ResNet under known names: expected layer1.0.conv1.weight (torchvision, timm) "
        f"or encoder.stages.0... (transformers), found {min(arrays, default='nothing')}"
    )


def _difference(arrays: dict[str, np.ndarray], naming: Naming) -> str | None:
    """Name the difference of a known variant from the paper's ResNet, if there is one."""
    block, norm = naming.block_name(2, 1), naming.branches[0][1]
    stem = tuple(
        len(arrays[f"{name}.weight"]) for name, _ in naming.stems.get("3x3", ())
        if f"{name}.weight" in arrays
    )  # fmt: skip
    if stem and stem != STEM:
        return f"its stem has {', '.join(map(str, stem))} channels, the paper's 64, 64, 128"
    if arrays.get(f"{block}downsample.1.weight", np.empty(0)).ndim == 4:
        return "its shortcuts begin with an average pooling (d, e), the paper's network has none"
    if any(re.search(r"\.se(_module)?\.", key) for key in arrays):
        return "its blocks weigh their channels (SE and relatives), the paper's do not"
    first, second = (arrays.get(f"{block}{name}.weight") for name, _ in naming.branches[:2])
    if first is not None and second is not None and first.ndim == second.ndim == 4:
        if first.shape[0] != second.shape[1]:
            return (
                f"its 3x3 convolutions have {first.shape[0] // second.shape[1]} groups (ResNeXt), "
                "the paper's one"
            )
        if len(second) != 64:
            return f"its first block has {len(second)} channels (wide), the paper's 64"
    if f"{block}{norm}.running_mean" not in arrays:
        return f"{block}{norm} has no running_mean: it normalises otherwise than by batches"
    return None


def _find_depth(arrays: dict[str, np.ndarray], naming: Naming, file: Path) -> int:
    stages = range(2, 6)
    units = tuple(
        sum(f"{naming.block_name(stage, unit)}{naming.branches[0][0]}.weight" in arrays
            for unit in range(1, 100))
        for stage in stages
    )  # fmt: skip
    basic = f"{naming.block_name(2, 1)}{naming.branches[2][0]}.weight" not in arrays
    for depth, expected in DEPTHS.items():
        if (units, basic) == expected:
            return depth
    blocks = "basic blocks" if basic else "bottlenecks"
    raise RunError(
        f"{file}: its stages have {', '.join(map(str, units))} {blocks}; expected those of a "
        f"ResNet of depth {', '.join(map(str, DEPTHS))}"
    )
