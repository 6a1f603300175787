"""The paper's networks as MXNet Symbols: :func:`get_symbol` is the one entry."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx

from .decoders import decode
from .errors import NetworkError
from .hdc import schedule
from .losses import add_loss
from .resnet import Layers, convolutions, resnet

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
    loss: str = "cross_entropy",
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
        Part of the last layers' names (``fc1_{head}_c0_weight``), usually the data set's name.
        Layers of another data set then have other names and cannot be loaded by accident.
    learn_bn : bool
        Whether a training step uses and updates the batch's own statistics.
    loss : str
        Names in :data:`symbols.losses.LOSSES`, joined by ``+``.
    normalization : {"valid", "fixed"}
        The loss gradient is the mean over the batch's valid pixels, or over all its pixels.
    class_weights : sequence of float
        Factor of the loss gradient at the cells of each class; empty: 1 for every class.
    others
        The keys of ``[network]`` in ``configs/schema.py``, which has their defaults.

    Returns
    -------
    Symbol
        Input ``data`` (N, 3, H, W) float32, RGB minus mean, H and W multiples of ``downsample``;
        input ``seg_loss_label`` (N, block * block * h * w), train ids packed as the scores are;
        output ``seg_loss_output`` (N, L, block * block * h * w), softmax over the classes; and
        ``seg_loss_terms_output`` (1,), the loss, where it is not cross-entropy.

    Raises
    ------
    NetworkError
        On an unknown depth, dilation schedule, decoder or loss, or a decoder that does not build
        what its entry announces.
    """
    res4, res5 = schedule(dilation, convolutions(depth))
    features = resnet(
        Layers(bn_eps, bn_momentum, learn_bn), mx.sym.Variable("data"), depth,
        (res4, res5 if stages == 5 else ()), stem_kind=stem, width=width, downsample=downsample,
        stride_in=stride_in, pool_pad=pool_pad,
    )  # fmt: skip
    scores = decode(
        features, decoder, classes=classes, cell=cell, downsample=downsample, width=width,
        rates=aspp, name=head,
    )  # fmt: skip
    return add_loss(
        scores, classes=classes, loss=loss, normalization=normalization,
        ignore_label=ignore_label, class_weights=class_weights,
    )  # fmt: skip
