"""Map label values to train ids, and name the likely cause if they do not fit the class table."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .errors import DataError

STRAY = 1000  # fewer than one pixel in so many is a stray value


def to_train_ids(label: np.ndarray, lut: np.ndarray, path: Path | str) -> np.ndarray:
    """Map label values (H, W) uint8 to train ids (H, W) uint8.

    ``lut`` is (256,) int16: train id of each value, -1 where the class table does not have it.
    Raises ``DataError`` that names the file, the values outside the table and the likely cause.
    """
    if not label.size:
        return label
    outside = lut < 0
    # Pixels need a check only if the largest value reaches the first one outside the table.
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
        f"expected {ranges(known)}{likely_cause(counts, known)}"
    )


def likely_cause(counts: np.ndarray, known: np.ndarray) -> str:
    """Guess why a histogram (256,) has values that aren't ``known``; empty: no likely cause."""
    top = int(known[known < 255].max(initial=0))
    found = set(np.flatnonzero(counts).tolist())
    outside = found - set(known.tolist())
    largest = max(found - {255}, default=0)
    # Compression blurs the borders of classes: many masks have a few pixels of such values.
    few = sum(int(counts[value]) for value in outside) * STRAY < counts.sum()
    if found <= {0, 255}:
        return "; a black-and-white mask (0/255) instead of class values?"
    if len(found) > 40:
        return "; a colour or compressed (JPEG) picture converted to grey?"
    if largest <= top:
        return "; train ids (255 is ignored) where labelIds are expected?" if 255 in outside else ""
    if largest == top + 1:
        also = ", or a mask changed by JPEG compression?" if few else "?"
        return f"; classes counted from 1 instead of 0{also}"
    if few:
        return "; a mask changed by JPEG compression or smooth resizing?"
    if largest <= 33:
        return "; labelIds where train ids are expected (or the wrong class table)?"
    return "; a colour or compressed (JPEG) picture converted to grey?" if len(outside) > 2 else ""


def ranges(values: np.ndarray) -> str:
    """Write sorted integers as ``0-18, 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs if len(r))
