"""The order in which DUC lays out a label map, defined only here (section 3.1).

A feature pixel predicts ``block x block`` cells; a cell covers ``cell x cell`` pixels. The flat
axis runs over the row in the block, the column in the block, the feature row and the feature
column, as the channels of the released network do.
"""

from __future__ import annotations

import numpy as np


def pack_labels(labels: np.ndarray, cell: int, block: int) -> np.ndarray:
    """Reduce labels (..., H, W) to one value per cell, flat: (..., block * block * h * w).

    H and W are multiples of ``cell * block``; h = H / (cell * block), w likewise.
    """
    cells = labels[..., ::cell, ::cell]
    *lead, rows, columns = cells.shape
    h, w = rows // block, columns // block
    grid = cells.reshape(*lead, h, block, w, block)
    axes = len(lead)
    order = (*range(axes), axes + 1, axes + 3, axes, axes + 2)
    return grid.transpose(order).reshape(*lead, block * block * h * w)


def unpack_scores(packed: np.ndarray, feature_hw: tuple[int, int], block: int) -> np.ndarray:
    """Arrange (..., block * block * h * w) as (..., block * h, block * w): one value per cell."""
    h, w = feature_hw
    lead = packed.shape[:-1]
    axes = len(lead)
    order = (*range(axes), axes + 2, axes, axes + 3, axes + 1)
    grid = packed.reshape(*lead, block, block, h, w).transpose(order)
    return grid.reshape(*lead, h * block, w * block)
