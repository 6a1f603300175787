"""Pictures of labels: files, colours, error maps, overlays, and data for ``<img>``."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from configs.datasets import DatasetSpec
from train.atomic import atomic_write

WRONG = (226, 40, 40)  # RGB of wrong pixels in an error map, and of road in an overlay
OVERLAY_SHARE = 0.5  # of the class colours in an overlay
JPEG_QUALITY = 82


def colours(labels: np.ndarray, dataset: DatasetSpec) -> np.ndarray:
    """Paint (H, W) uint8 train ids in the class colours, (H, W, 3) uint8 RGB; ignored black."""
    return dataset.palette[labels]


def error_map(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, ignore: int
) -> np.ndarray:
    """Mark wrong pixels red on a pale grey image; pixels that are not scored are black.

    All are (H, W), ``image`` is (H, W, 3) uint8 RGB; so is the result.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 3 + 160
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[truth != prediction] = WRONG
    picture[truth == ignore] = 0
    return picture


def overlay(image: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """Blend an image with its painted labels, both (H, W, 3) uint8 RGB."""
    return cv2.addWeighted(image, 1 - OVERLAY_SHARE, painted, OVERLAY_SHARE, 0)


def tint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Overlay the pixels of ``mask`` (H, W) with red, as the paper's figure 6 shows road."""
    return np.where(mask[..., None], overlay(image, np.full_like(image, WRONG)), image)


def shrink(picture: np.ndarray, width: int, photo: bool) -> np.ndarray:
    """Shrink a picture to at most ``width`` pixels; only a photo's colours are interpolated."""
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    interpolation = cv2.INTER_AREA if photo else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def data_uri(picture: np.ndarray, photo: bool) -> str:
    """Encode (H, W, 3) uint8 RGB for an ``<img>``: a JPEG if it is a photo, else a PNG."""
    suffix, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]) if photo else (".png", [])
    encoded = cv2.imencode(suffix, picture[..., ::-1], options)[1].tobytes()
    kind = "jpeg" if photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def write_labels(path: Path, labels: np.ndarray, dataset: DatasetSpec) -> None:
    """Write (H, W) uint8 train ids as an 8-bit palette PNG in the data set's colours."""
    picture = Image.fromarray(labels)
    picture.putpalette(dataset.palette.tobytes())
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")
