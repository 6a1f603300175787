"""The cells of a batch, as a loss sees them: what the network says, and what is true."""

from __future__ import annotations

from dataclasses import dataclass

import mxnet as mx

LABEL = "seg_loss_label"  # the graph's second input


@dataclass(frozen=True)
class Cells:
    """The cells of a batch, as the terms of a loss take them; all are Symbols but the last two.

    Attributes
    ----------
    probabilities : (N, L, cells)
        Softmax over the classes.
    surprise : (N, cells)
        Negative logarithm of the probability of the cell's true class.
    label : (N, cells)
        Train ids.
    valid : (N, cells)
        1, or 0 where the label is ignored.
    class_weights : (L,)
        Factor of each class's loss.
    classes : int
        Number of classes L.
    over_all : bool
        Whether a mean is over all cells (``solver.normalization = fixed``), or the valid ones.
    """

    probabilities: mx.sym.Symbol
    surprise: mx.sym.Symbol
    label: mx.sym.Symbol
    valid: mx.sym.Symbol
    class_weights: mx.sym.Symbol
    classes: int
    over_all: bool

    def mean(self, values: mx.sym.Symbol, counted: mx.sym.Symbol | None = None) -> mx.sym.Symbol:
        """Mean (1,) of one value a cell, each times the weight of the cell's class.

        ``counted`` (N, cells) is 1 for the cells that take part: by default the valid ones.
        """
        counted = self.valid if counted is None else counted
        weight = counted * mx.sym.take(self.class_weights, self.label, mode="clip")
        number = mx.sym.sum(mx.sym.ones_like(counted) if self.over_all else counted)
        # Ignored cells may have any value, also one that is not finite.
        kept = mx.sym.where(counted, values, mx.sym.zeros_like(values))
        return mx.sym.sum(kept * weight) / mx.sym.maximum(number, 1)
