"""From features to the scores of every class: the head and the decoders (paper, section 3.1).

DUC's scores are (N, classes, block * block * h * w) for features (N, C, h, w): class outermost,
then row and column of a prediction within its feature pixel's block, then the feature pixel.
Deconvolution's are (N, classes, H * W), row by row.
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

    With ``block`` 1 this is the baseline's head; its scores are upsampled bilinearly at test time.
    """
    scores = aspp(features, classes * block * block, rates, name)
    return mx.sym.reshape(scores, shape=(0, classes, -1), name=f"{name}_scores")


# Channels of the maps below the last deconvolution. With 2048 features, 6 ASPP paths and 19 classes
# the heads have 33,599,461 (deconv) and 33,650,890 (deconv2x4) parameters, the DUC head of cell 2
# that the paper compares them with 33,621,792 (section 4.1.2: "approximately the same number").
DECONV_CHANNELS = {"deconv": 291, "deconv2x4": 289}


def deconvolution(
    features: mx.sym.Symbol,
    classes: int,
    factors: Sequence[int],
    filters: int,
    rates: Sequence[int],
    name: str,
) -> mx.sym.Symbol:
    """Upsampling by learned deconvolutions, one per factor, to the full resolution.

    The paper gives neither kernels nor activations. A kernel is twice its factor, so that every
    output pixel has four contributions, as in FCN (Long et al. 2015); ReLU between the layers.
    """
    body = aspp(features, filters, rates, f"{name}_deconv")
    for layer, factor in enumerate(factors, start=1):
        body = mx.sym.Deconvolution(
            mx.sym.relu(body, name=f"fc1_{name}_deconv_relu{layer}"),
            num_filter=classes if layer == len(factors) else filters,
            kernel=(2 * factor, 2 * factor),
            stride=(factor, factor),
            pad=(factor // 2, factor // 2),
            no_bias=False,
            name=f"fc1_{name}_deconv_up{layer}",
        )
    return mx.sym.reshape(body, shape=(0, classes, -1), name=f"{name}_scores")
