"""The classes' names and colours below a picture: of TensorBoard, and of the tools."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from configs.datasets import DatasetSpec

SWATCH, GAP, FONT = 12, 6, 13  # pixels of an entry


def add_legend(picture: np.ndarray, dataset: DatasetSpec) -> np.ndarray:
    """Put the names and colours of the classes below a picture (H, W, 3) uint8 RGB.

    Returns (H + h, W, 3); the width decides the number of rows of entries.
    """
    width = picture.shape[1]
    font = ImageFont.load_default(FONT)
    entries = [
        (row.name, row.color, int(font.getlength(row.name))) for row in dataset.train_classes
    ]
    places, left, top = [], GAP, GAP
    for _, _, length in entries:
        if left > GAP and left + SWATCH + length + 2 * GAP > width:
            left, top = GAP, top + SWATCH + GAP
        places.append((left, top))
        left += SWATCH + length + 3 * GAP
    strip = Image.new("RGB", (width, top + SWATCH + GAP), "white")
    pen = ImageDraw.Draw(strip)
    for (name, color, _), (left, top) in zip(entries, places):
        pen.rectangle((left, top, left + SWATCH, top + SWATCH), fill=tuple(color), outline="black")
        pen.text((left + SWATCH + GAP, top - 1), name, fill="black", font=font)
    return np.vstack([picture, np.asarray(strip)])
