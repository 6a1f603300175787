"""The encoder: ResNet (He et al. 2015) with dilated stages 4 and 5 (paper, section 3.2).

Layer names are those of the authors' released checkpoints, so that their parameters fit. As in the
release, a bottleneck's first 1x1 convolution has the stride and the 3x3/2 max-pool is not padded.
GluonCV's variants (stride on the 3x3, padded pool) are options. Depths 18 and 34 have basic blocks
of two 3x3 convolutions, the stride on the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import mxnet as mx

from .errors import look_up

STAGE_FILTERS = (64, 128, 256, 512)  # of the 3x3 convolutions of stages 2 to 5
EXPANSION = 4  # channels of a bottleneck's output per channel of its 3x3 convolution


class Depth(NamedTuple):
    """A row of :data:`DEPTHS`."""

    units: tuple[int, int, int, int]  # residual blocks of stages 2 to 5
    basic: bool = False  # blocks of two 3x3 convolutions, instead of bottlenecks with one


# Table 1 of He et al., and 26 and 38, small relatives for CPUs (3 convolutions a block, plus the
# stem and the head).
DEPTHS: dict[int, Depth] = {
    18: Depth((2, 2, 2, 2), basic=True),
    26: Depth((2, 2, 2, 2)),
    34: Depth((3, 4, 6, 3), basic=True),
    38: Depth((2, 3, 4, 3)),
    50: Depth((3, 4, 6, 3)),
    101: Depth((3, 4, 23, 3)),
    152: Depth((3, 8, 36, 3)),
}


def convolutions(depth: int) -> tuple[int, int, int, int]:
    """Count the 3x3 convolutions of stages 2 to 5; a dilation schedule has a rate for each.

    Raises
    ------
    NetworkError
        The depth is not in :data:`DEPTHS`.
    """
    units, basic = look_up("depth", depth, DEPTHS)
    res2, res3, res4, res5 = (count * (2 if basic else 1) for count in units)
    return res2, res3, res4, res5


@dataclass(frozen=True)
class Layers:
    """Builds convolutions followed by batch normalisation, all with the same constants."""

    bn_eps: float
    bn_momentum: float
    learn_bn: bool

    def conv_bn(
        self,
        data: mx.sym.Symbol,
        filters: int,
        kernel: int,
        name: str,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
    ) -> mx.sym.Symbol:
        """``kernel x kernel`` convolution without bias; only ``stride`` changes the size."""
        conv = mx.sym.Convolution(
            data,
            num_filter=filters,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            dilate=(dilation, dilation),
            pad=(kernel // 2 * dilation,) * 2,
            no_bias=True,
            name=name,
        )
        normal = mx.sym.BatchNorm(
            conv,
            eps=self.bn_eps,
            momentum=self.bn_momentum,
            fix_gamma=False,
            use_global_stats=not self.learn_bn,
            name=f"{name}/bn",
        )
        return mx.sym.relu(normal, name=f"{name}/relu") if relu else normal


def stem(
    layers: Layers, data: mx.sym.Symbol, kind: str, width: float, pool_pad: int
) -> mx.sym.Symbol:
    """Quarter-size features: a 7x7/2 convolution or three 3x3 (section 4.1.4), then max-pool."""
    if kind == "7x7":
        body = layers.conv_bn(data, channels(64, width), 7, "conv1_7x7_s2", stride=2)
    else:
        body = layers.conv_bn(data, channels(64, width), 3, "conv1_1_3x3_s2", stride=2)
        body = layers.conv_bn(body, channels(64, width), 3, "conv1_2_3x3")
        body = layers.conv_bn(body, channels(128, width), 3, "conv1_3_3x3")
    return mx.sym.Pooling(
        body,
        kernel=(3, 3),
        stride=(2, 2),
        pad=(pool_pad, pool_pad),
        pool_type="max",
        pooling_convention="valid",
        name="pool1_3x3_s2",
    )


def bottleneck(
    layers: Layers,
    data: mx.sym.Symbol,
    filters: int,
    name: str,
    stride: int,
    dilation: int,
    project: bool,
    stride_in: str,
) -> mx.sym.Symbol:
    """1x1 reduce, dilated 3x3, 1x1 increase, added to the input (projected where sizes change)."""
    stride_1x1, stride_3x3 = (stride, 1) if stride_in == "1x1" else (1, stride)
    body = layers.conv_bn(data, filters, 1, f"{name}_1x1_reduce", stride=stride_1x1)
    body = layers.conv_bn(body, filters, 3, f"{name}_3x3", stride=stride_3x3, dilation=dilation)
    body = layers.conv_bn(body, filters * EXPANSION, 1, f"{name}_1x1_increase", relu=False)
    if project:
        data = layers.conv_bn(
            data, filters * EXPANSION, 1, f"{name}_1x1_proj", stride=stride, relu=False
        )
    # Named, because MXNet would count its default names up over all graphs of a process.
    return mx.sym.relu(mx.sym.elemwise_add(data, body, name=f"{name}/sum"), name=f"{name}/relu")


def basic_block(
    layers: Layers,
    data: mx.sym.Symbol,
    filters: int,
    name: str,
    stride: int,
    dilations: tuple[int, int],
    project: bool,
) -> mx.sym.Symbol:
    """Two dilated 3x3 convolutions, added to the input (projected where sizes change)."""
    first, second = dilations
    body = layers.conv_bn(data, filters, 3, f"{name}_3x3_1", stride=stride, dilation=first)
    body = layers.conv_bn(body, filters, 3, f"{name}_3x3_2", dilation=second, relu=False)
    if project:
        data = layers.conv_bn(data, filters, 1, f"{name}_1x1_proj", stride=stride, relu=False)
    return mx.sym.relu(mx.sym.elemwise_add(data, body, name=f"{name}/sum"), name=f"{name}/relu")


def resnet(
    layers: Layers,
    data: mx.sym.Symbol,
    depth: int,
    dilations: tuple[tuple[int, ...], tuple[int, ...]],
    stem_kind: str,
    width: float,
    downsample: int,
    stride_in: str,
    pool_pad: int,
) -> mx.sym.Symbol:
    """Features (N, C, H / downsample, W / downsample) of images (N, 3, H, W).

    C is 2048 * width, or 512 * width with basic blocks. ``dilations`` are the rates of the 3x3
    convolutions of stages 4 and 5 at downsample 8; a stage without rates is left out. At downsample
    4 stage 3 keeps its resolution too, so every rate from there on doubles (section 3.2: a stride
    that is reset to 1 doubles the dilation of all subsequent layers).
    """
    finer = 8 // downsample
    units, basic = look_up("depth", depth, DEPTHS)
    res2, res3, *_ = convolutions(depth)
    body = stem(layers, data, stem_kind, width, pool_pad)
    for stage, rates in enumerate(((1,) * res2, (1,) * res3, *dilations), start=2):
        filters = channels(STAGE_FILTERS[stage - 2], width)
        rates = tuple(rate * finer if stage > 2 else rate for rate in rates)
        for unit in range(1, units[stage - 2] + 1) if rates else ():
            name = f"conv{stage}_{unit}"
            stride = 2 if (stage, unit) == (3, 1) and downsample == 8 else 1
            if basic:
                # Stage 2 begins with the channels that a 7x7 stem gives.
                project = unit == 1 and (stage > 2 or stem_kind == "3x3")
                pair = (rates[2 * unit - 2], rates[2 * unit - 1])
                body = basic_block(layers, body, filters, name, stride, pair, project)
            else:
                rate = rates[unit - 1]
                body = bottleneck(layers, body, filters, name, stride, rate, unit == 1, stride_in)
    return body


def channels(full: int, width: float) -> int:
    """Channel count at a width multiplier, at least one."""
    return max(1, round(full * width))
