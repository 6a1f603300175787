"""What training minimises: cross-entropy over the cells (the paper), or a sum of other terms.

Cross-entropy alone is MXNet's ``SoftmaxOutput``. Any other loss is a formula of
:class:`Cells`, whose gradient MXNet derives; docs/extending.md adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mxnet as mx

from .cells import LABEL, Cells
from .errors import look_up

FOCUS = 2.0  # gamma of Lin et al. 2017 (arXiv:1708.02002)
HARD = 0.7  # a cell whose class has a lower probability is hard; as in mmsegmentation
HARD_SHARE = 1 / 16  # of the valid cells count as hard at least, so that learning never ends
SMOOTH = 1.0  # cells; keeps the Dice score of a class of few cells finite


def cross_entropy(cells: Cells) -> mx.sym.Symbol:
    """Cross-entropy; alone it is computed by ``SoftmaxOutput`` instead."""
    return cells.mean(cells.surprise)


def focal(cells: Cells) -> mx.sym.Symbol:
    """Cross-entropy times (1 - p) ** 2, p the true class's probability (arXiv:1708.02002)."""
    return cells.mean((1 - mx.sym.exp(-cells.surprise)) ** FOCUS * cells.surprise)


def ohem(cells: Cells) -> mx.sym.Symbol:
    """Cross-entropy of the hard cells alone (online hard example mining, arXiv:1604.04339).

    Those are the cells whose class has a probability of at most :data:`HARD`, and at least the
    hardest :data:`HARD_SHARE` of the valid ones.
    """
    probability = mx.sym.BlockGrad(mx.sym.exp(-cells.surprise))
    ranked = mx.sym.sort(
        mx.sym.reshape(
            mx.sym.where(cells.valid, probability, 2 * mx.sym.ones_like(probability)), shape=(-1,)
        )
    )
    place = mx.sym.floor(mx.sym.sum(cells.valid) * HARD_SHARE)
    limit = mx.sym.maximum(mx.sym.take(ranked, place, mode="clip"), HARD)
    hard = mx.sym.broadcast_lesser_equal(probability, mx.sym.reshape(limit, shape=(1, 1)))
    return cells.mean(cells.surprise, cells.valid * hard)


def dice(cells: Cells) -> mx.sym.Symbol:
    """One minus the Dice score of each class that the labels have, and the mean over those classes.

    Score: ``2 sum(p g) / (sum(p) + sum(g))`` over the batch's valid cells, with probabilities p and
    truth g (arXiv:1606.04797 without its squares). A class weight multiplies its class's term.
    """
    ids = mx.sym.reshape(mx.sym.arange(0, cells.classes), shape=(1, cells.classes, 1))
    truth = mx.sym.broadcast_equal(mx.sym.expand_dims(cells.label, axis=1), ids)
    valid = mx.sym.expand_dims(cells.valid, axis=1)
    both, predicted, true = (
        mx.sym.sum(values, axis=(0, 2))
        for values in (
            cells.probabilities * truth,
            mx.sym.broadcast_mul(cells.probabilities, valid),
            truth,
        )
    )
    terms = 1 - (2 * both + SMOOTH) / (predicted + true + SMOOTH)
    there = true > 0
    number = mx.sym.maximum(mx.sym.sum(there), 1)
    return mx.sym.sum(terms * there * cells.class_weights) / number


LOSSES: dict[str, Callable[[Cells], mx.sym.Symbol]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "ohem": ohem,
    "dice": dice,
}


def add_loss(
    scores: mx.sym.Symbol,
    *,
    classes: int,
    loss: str,
    normalization: str,
    ignore_label: int,
    class_weights: Sequence[float],
) -> mx.sym.Symbol:
    """End a network's graph with softmax and loss.

    Parameters
    ----------
    scores : Symbol
        (N, L, cells).
    loss : str
        Names in :data:`LOSSES`, joined by ``+``.
    classes, normalization, ignore_label, class_weights
        As for :func:`symbols.get_symbol`.

    Returns
    -------
    Symbol
        First output: the probabilities (N, L, cells), ``seg_loss_output``. A loss other than
        cross-entropy is a second output, (1,).

    Raises
    ------
    NetworkError
        No such loss.
    """
    label = mx.sym.Variable(LABEL)
    if loss == "cross_entropy":
        return mx.sym.SoftmaxOutput(
            weigh_gradient(scores, label, class_weights) if class_weights else scores,
            label,
            multi_output=True,
            use_ignore=True,
            ignore_label=ignore_label,
            # MXNet's 'batch' divides by the batch size times the positions: the mean over all.
            normalization={"valid": "valid", "fixed": "batch"}[normalization],
            name="seg_loss",
        )
    terms = [look_up("loss", name, LOSSES) for name in loss.split("+")]
    # MXNet has to know the label's shape (N, cells) before it comes to some operators.
    one_class = mx.sym.reshape(mx.sym.slice_axis(scores, axis=1, begin=0, end=1), shape=(0, -1))
    label = mx.sym.BlockGrad(label + mx.sym.zeros_like(one_class))
    likelihood = mx.sym.log_softmax(scores, axis=1)
    cells = Cells(
        probabilities=mx.sym.exp(likelihood),
        surprise=-mx.sym.pick(likelihood, label, axis=1),
        label=label,
        valid=label != ignore_label,
        class_weights=constants(class_weights or (1.0,) * classes),
        classes=classes,
        over_all=normalization == "fixed",
    )
    probabilities = mx.sym.BlockGrad(cells.probabilities, name="seg_loss")
    total = sum(term(cells) for term in terms)
    return mx.sym.Group([probabilities, mx.sym.MakeLoss(total, name="seg_loss_terms")])


def weigh_gradient(
    scores: mx.sym.Symbol, label: mx.sym.Symbol, weights: Sequence[float]
) -> mx.sym.Symbol:
    """Return ``scores`` (N, L, cells), whose gradient is multiplied by the cell's class's weight.

    ``label`` is (N, cells); the ignored ones have no gradient to multiply. (SoftmaxOutput's own
    ``out_grad`` multiplies by the probabilities instead of the head gradient in MXNet 1.9.1.)
    """
    weight = mx.sym.expand_dims(mx.sym.take(constants(weights), label, mode="clip"), axis=1)
    weighted = mx.sym.broadcast_mul(scores, weight)
    return weighted + mx.sym.BlockGrad(scores - weighted)


def constants(values: Sequence[float]) -> mx.sym.Symbol:
    """Put numbers into a graph, (n,)."""
    return mx.sym.concat(*(mx.sym.full((1,), value) for value in values), dim=0)
