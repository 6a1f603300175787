"""Label file values to train ids, and the likely cause where they do not fit the class table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import DataError


def to_train_ids(label: np.ndarray, lut: np.ndarray, path: Path) -> np.ndarray:
    """Map label values (H, W) uint8 to train ids (H, W) uint8.

    ``lut`` is (256,) int16: train id of each value, -1 where the class table does not have it.
    Raises ``DataError`` that names the file, the values outside the table and the likely cause.
    """
    present = np.bincount(label.ravel(), minlength=256)
    outside = np.flatnonzero((present > 0) & (lut < 0))
    if outside.size:
        shown = ", ".join(f"{value} ({present[value]} pixels)" for value in outside[:8])
        known = np.flatnonzero(lut >= 0)
        raise DataError(
            f"{path}: label values outside the class table: {shown}"
            f"{' ...' if outside.size > 8 else ''}; expected {ranges(known)}"
            f"{likely_cause(np.flatnonzero(present), known)}"
        )
    return lut.astype(np.uint8)[label]


def likely_cause(values: np.ndarray, known: np.ndarray) -> str:
    """Guess why ``values`` are not all among the ``known`` ones; empty where nothing is likely."""
    top = int(known[known < 255].max(initial=0))
    found = set(values.tolist())
    if found <= {0, 255}:
        return "; a black-and-white mask (0/255) instead of class values?"
    if len(found) > 40:
        return "; a colour or compressed (JPEG) picture converted to grey?"
    if top < 33 and max(found - {255}, default=0) <= 33:
        if max(found - {255}, default=0) == top + 1:
            return "; classes counted from 1 instead of 0?"
        return "; labelIds where train ids are expected (or the wrong class table)?"
    return ""


def ranges(values: np.ndarray) -> str:
    """Write sorted integers as ``0-18, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs if len(r))
