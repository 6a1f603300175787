"""From features to the scores of every class: the decoders (paper, section 3.1).

A decoder is a function from features to maps of scores, and a line in :data:`DECODERS` that also
says where its predictions lie. docs/extending.md adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mxnet as mx

from .errors import NetworkError, look_up
from .head import OWN, Head, aspp
from .resnet import channels


@dataclass(frozen=True)
class Decoder:
    """An entry of :data:`DECODERS`.

    Attributes
    ----------
    build : callable
        ``(features, head) -> maps``: Symbols (N, C, H / downsample, W / downsample) and
        (N, head.outputs, H / (cell * block), W / (cell * block)).
    layout : callable
        ``(downsample, cell) -> (cell, block)``: label pixels per prediction, and predictions per
        pixel of the maps (sides). The second ``cell`` is that of the configuration.
    interpolates_scores : bool
        Between cells, scores are interpolated and then become probabilities (DeepLab-V2), instead
        of the probabilities themselves (the release's DUC).
    """

    build: Callable[[mx.sym.Symbol, Head], mx.sym.Symbol]
    layout: Callable[[int, int], tuple[int, int]]
    interpolates_scores: bool = False


def duc(features: mx.sym.Symbol, head: Head) -> mx.sym.Symbol:
    """Dense upsampling convolution: ``block * block`` predictions from each feature pixel.

    With ``block`` 1 this is the baseline's head; its scores are upsampled bilinearly at test time.
    """
    return aspp(features, head.outputs, head.aspp, head.name)


def deconvolution(
    features: mx.sym.Symbol, head: Head, factors: Sequence[int], filters: int
) -> mx.sym.Symbol:
    """Upsampling by learned deconvolutions, one per factor, to the full resolution.

    The paper gives neither kernels nor activations. A kernel is twice its factor, so that every
    output pixel has four contributions, as in FCN (Long et al. 2015); ReLU between the layers.
    """
    name, filters = f"{head.name}_deconv", channels(filters, head.width)
    body = aspp(features, filters, head.aspp, name)
    for layer, factor in enumerate(factors, start=1):
        body = mx.sym.Deconvolution(
            mx.sym.relu(body, name=f"{OWN}{name}_relu{layer}"),
            num_filter=head.outputs if layer == len(factors) else filters,
            kernel=(2 * factor, 2 * factor),
            stride=(factor, factor),
            pad=(factor // 2, factor // 2),
            no_bias=False,
            name=f"{OWN}{name}_up{layer}",
        )
    return body


# The channels below the last deconvolution, 291 and 289: with 2048 features, 6 ASPP paths and 19
# classes the heads then have 33,599,461 (deconv) and 33,650,890 (deconv2x4) parameters, the DUC
# head of cell 2 that the paper compares them with 33,621,792 (section 4.1.2: "approximately the
# same number").
def deconv(features: mx.sym.Symbol, head: Head) -> mx.sym.Symbol:
    """One deconvolution by the whole factor."""
    return deconvolution(features, head, (head.downsample,), 291)


def deconv2x4(features: mx.sym.Symbol, head: Head) -> mx.sym.Symbol:
    """Two deconvolutions, by 2 and by the rest."""
    return deconvolution(features, head, (2, head.downsample // 2), 289)


DECODERS: dict[str, Decoder] = {
    "duc": Decoder(duc, lambda downsample, cell: (cell, downsample // cell)),
    # Trained at feature resolution (section 4.1.1).
    "bilinear": Decoder(duc, lambda downsample, cell: (downsample, 1), interpolates_scores=True),
    "deconv": Decoder(deconv, lambda downsample, cell: (1, 1)),
    "deconv2x4": Decoder(deconv2x4, lambda downsample, cell: (1, 1)),
}


def decode(
    features: mx.sym.Symbol,
    decoder: str,
    *,
    classes: int,
    cell: int,
    downsample: int,
    width: float,
    rates: Sequence[int],
    name: str,
) -> mx.sym.Symbol:
    """Return scores (N, classes, block * block * h * w) of features (N, C, h', w').

    The last axis runs over row and column of a prediction within its pixel's block, then over the
    pixels (h, w) of the decoder's maps.

    Raises
    ------
    NetworkError
        There is no such decoder, or its maps are not what its layout announces.
    """
    chosen = look_up("decoder", decoder, DECODERS)
    cell, block = chosen.layout(downsample, cell)
    head = Head(classes, block, downsample, width, tuple(rates), name)
    maps = chosen.build(features, head)
    _check(decoder, features, maps, head, cell)
    return mx.sym.reshape(maps, shape=(0, classes, -1), name=f"{name}_scores")


def _check(
    decoder: str, features: mx.sym.Symbol, maps: mx.sym.Symbol, head: Head, cell: int
) -> None:
    """Raise ``NetworkError`` where a decoder does not build what its line in the table says."""
    if not isinstance(maps, mx.sym.Symbol):
        raise NetworkError("decoder", decoder, f"build to return a Symbol, it returns {maps!r}")
    pixels = (8 * head.downsample, 12 * head.downsample)
    side = cell * head.block
    expected = (1, head.outputs, *(length // side for length in pixels))
    try:
        found = maps.infer_shape(data=(1, 3, *pixels))[1][0]
    except mx.base.MXNetError as error:
        lines = [line for line in str(error).splitlines() if "Error" in line]
        raise NetworkError(
            "decoder", decoder, f"layers that fit each other ({' '.join(lines[:1]).strip()})"
        ) from None
    if found != expected:
        raise NetworkError(
            "decoder",
            decoder,
            f"maps of {expected} for an image of {pixels[0]}x{pixels[1]}, by its layout of cell "
            f"{cell} and block {head.block}; it builds {found}",
        )
    known = {*features.list_arguments(), *features.list_auxiliary_states()}
    for name in (*maps.list_arguments(), *maps.list_auxiliary_states()):
        if name not in known and not name.startswith(OWN):
            raise NetworkError(
                "decoder",
                decoder,
                f"parameters whose names begin with {OWN}, by which solver.head_lr_mult knows "
                f"them; it has {name}",
            )
