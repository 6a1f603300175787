"""The paper's networks as MXNet Symbols: :func:`get_symbol` is the one entry."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from .decoders import DECONV_CHANNELS, deconvolution, duc
from .errors import NetworkError
from .hdc import schedule
from .resnet import Layers, channels, convolutions, resnet

__all__ = ["NetworkError", "get_symbol"]


def get_symbol(
    *,
    classes: int,
    head: str,
    depth: int,
    stages: int,
    width: float,
    stem: str,
    stride_in: str,
    pool_pad: int,
    downsample: int,
    dilation: str,
    aspp: Sequence[int],
    decoder: str,
    cell: int,
    bn_eps: float,
    bn_momentum: float,
    learn_bn: bool = False,
    normalization: str = "valid",
    ignore_label: int = 255,
    class_weights: Sequence[float] = (),
) -> mx.sym.Symbol:
    """Build the graph from image to per-cell class probabilities.

    Parameters
    ----------
    classes : int
        Number of classes L.
    head : str
        Names the last layers (``fc1_{head}_c0_weight``), by custom after the data set: layers of
        another data set then do not fit by accident.
    learn_bn : bool
        Whether a training step uses and updates the batch's own statistics.
    normalization : {"valid", "fixed"}
        The loss gradient is the mean over the batch's valid pixels, or over all its pixels.
    class_weights : sequence of float
        Factor of the loss gradient at the cells of each class; empty: 1 for all.
    others
        The keys of ``[network]`` in ``configs/schema.py``, where their defaults stand.

    Returns
    -------
    Symbol
        Input ``data`` (N, 3, H, W) float32, RGB minus mean, H and W multiples of ``downsample``;
        input ``seg_loss_label`` (N, block * block * h * w), train ids packed as the scores are;
        output ``seg_loss_output`` (N, L, block * block * h * w), softmax over the classes.

    Raises
    ------
    NetworkError
        On an unknown depth, dilation schedule or decoder.
    """
    res4, res5 = schedule(dilation, convolutions(depth))
    features = resnet(
        Layers(bn_eps, bn_momentum, learn_bn),
        mx.sym.Variable("data"),
        depth,
        (res4, res5 if stages == 5 else ()),
        stem_kind=stem,
        width=width,
        downsample=downsample,
        stride_in=stride_in,
        pool_pad=pool_pad,
    )
    if decoder == "duc":
        scores = duc(features, classes, downsample // cell, aspp, head)
    elif decoder == "bilinear":
        scores = duc(features, classes, 1, aspp, head)
    elif decoder in DECONV_CHANNELS:
        factors = (downsample,) if decoder == "deconv" else (2, downsample // 2)
        filters = channels(DECONV_CHANNELS[decoder], width)
        scores = deconvolution(features, classes, factors, filters, aspp, head)
    else:
        raise NetworkError(f"decoder {decoder}: expected duc, bilinear, deconv or deconv2x4")
    label = mx.sym.Variable("seg_loss_label")
    return mx.sym.SoftmaxOutput(
        weigh_gradient(scores, label, class_weights) if class_weights else scores,
        label,
        multi_output=True,
        use_ignore=True,
        ignore_label=ignore_label,
        # MXNet's 'batch' divides by the batch size times the positions, which is the mean over all.
        normalization={"valid": "valid", "fixed": "batch"}[normalization],
        name="seg_loss",
    )


def weigh_gradient(
    scores: mx.sym.Symbol, label: mx.sym.Symbol, weights: Sequence[float]
) -> mx.sym.Symbol:
    """Return ``scores`` (N, L, cells), whose gradient is multiplied by the cell's class's weight.

    ``label`` is (N, cells); the ignored ones have no gradient to multiply. (SoftmaxOutput's own
    ``out_grad`` multiplies by the probabilities instead of the head gradient in MXNet 1.9.1.)
    """
    table = mx.sym.concat(*(mx.sym.full((1,), weight) for weight in weights), dim=0)
    weight = mx.sym.expand_dims(mx.sym.take(table, label, mode="clip"), axis=1)
    weighted = mx.sym.broadcast_mul(scores, weight)
    return weighted + mx.sym.BlockGrad(scores - weighted)
