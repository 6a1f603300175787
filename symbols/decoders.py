"""From features to the scores of every class: the head and the decoders (paper, section 3.1).

All of them give scores (N, classes, block * block * h * w) for features (N, C, h, w): class outermost,
then the row and the column of a prediction within its feature pixel's block, then the feature pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx


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
            name=f"fc1_{name}_c{path}",
        )
        for path, rate in enumerate(rates)
    ]
    return mx.sym.add_n(*paths, name=f"fc1_{name}") if len(paths) > 1 else paths[0]


def duc(
    features: mx.sym.Symbol, classes: int, block: int, rates: Sequence[int], name: str
) -> mx.sym.Symbol:
    """Dense upsampling convolution: ``block * block`` predictions from each feature pixel.

    With ``block`` 1 this is the baseline's head, whose scores are upsampled bilinearly at test time.
    """
    scores = aspp(features, classes * block * block, rates, name)
    return mx.sym.reshape(scores, shape=(0, classes, -1), name=f"{name}_scores")
