"""What every decoder is made from: what it has to predict, the names of its layers, and ASPP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mxnet as mx

OWN = "fc1_"  # begins the names of the head's and the decoder's parameters, and no others


@dataclass(frozen=True)
class Head:
    """What a decoder has to predict, and how it names its layers.

    Attributes
    ----------
    classes : int
        Number of classes L.
    block : int
        Side of the square of predictions that each pixel of the decoder's maps holds.
    downsample : int
        Input pixels per feature pixel.
    width : float
        Multiplies the channel counts, as in the backbone.
    aspp : tuple of int
        Dilation rate of each parallel path.
    name : str
        Of the data set; parameters are named ``fc1_{name}...``.
    """

    classes: int
    block: int
    downsample: int
    width: float
    aspp: tuple[int, ...]
    name: str

    @property
    def outputs(self) -> int:
        """Channels of the decoder's maps: class outermost, then row and column in the block."""
        return self.classes * self.block**2


def aspp(features: mx.sym.Symbol, filters: int, rates: Sequence[int], name: str) -> mx.sym.Symbol:
    """Sum of parallel 3x3 convolutions with bias, one per dilation rate (DeepLab-V2's ASPP).

    One rate is the network without ASPP.
    """
    paths = [
        mx.sym.Convolution(
            features,
            num_filter=filters,
            kernel=(3, 3),
            pad=(rate, rate),
            dilate=(rate, rate),
            name=f"{OWN}{name}_c{path}",
        )
        for path, rate in enumerate(rates)
    ]
    return mx.sym.add_n(*paths, name=f"{OWN}{name}") if len(paths) > 1 else paths[0]
