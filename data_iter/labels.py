"""Label file values to train ids, and the likely cause where they do not fit the class table."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .errors import DataError


def to_train_ids(label: np.ndarray, lut: np.ndarray, path: Path | str) -> np.ndarray:
    """Map label values (H, W) uint8 to train ids (H, W) uint8.

    ``lut`` is (256,) int16: train id of each value, -1 where the class table does not have it.
    Raises ``DataError`` that names the file, the values outside the table and the likely cause.
    """
    if not label.size:
        return label
    outside = lut < 0
    # Only where a value is as high as the first one outside need every pixel be looked up.
    if label.max() >= np.argmax(outside) and cv2.LUT(label, outside.astype(np.uint8)).any():
        counts = np.bincount(label.ravel(), minlength=256)
        raise DataError(f"{path}: {outside_table(counts, lut)}")
    return cv2.LUT(label, lut.astype(np.uint8))


def outside_table(counts: np.ndarray, lut: np.ndarray) -> str:
    """Say which values of a histogram (256,) are outside the table, and why that may be."""
    outside, known = np.flatnonzero((counts > 0) & (lut < 0)), np.flatnonzero(lut >= 0)
    shown = ", ".join(f"{value} ({counts[value]} pixels)" for value in outside[:8])
    return (
        f"label values outside the class table: {shown}{' ...' if outside.size > 8 else ''}; "
        f"expected {ranges(known)}{likely_cause(np.flatnonzero(counts), known)}"
    )


def likely_cause(values: np.ndarray, known: np.ndarray) -> str:
    """Guess why ``values`` are not all among the ``known`` ones; empty where nothing is likely."""
    top = int(known[known < 255].max(initial=0))
    found = set(values.tolist())
    largest = max(found - {255}, default=0)
    if found <= {0, 255}:
        return "; a black-and-white mask (0/255) instead of class values?"
    if len(found) > 40:
        return "; a colour or compressed (JPEG) picture converted to grey?"
    if largest == top + 1:
        return "; classes counted from 1 instead of 0?"
    if top < largest <= 33:
        return "; labelIds where train ids are expected (or the wrong class table)?"
    if 255 in found and 255 not in known and largest <= top:
        return "; train ids (255 is ignored) where labelIds are expected?"
    return ""


def ranges(values: np.ndarray) -> str:
    """Write sorted integers as ``0-18, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs if len(r))
