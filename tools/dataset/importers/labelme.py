"""LabelMe: one JSON file beside each image."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_iter.errors import DataError
from data_iter.image_files import read_bytes
from data_iter.listing import list_files

from .regions import (
    IGNORED,
    Annotated,
    Finder,
    Region,
    Source,
    check_coordinates,
    ellipse,
    pasted,
    polygon_mask,
    rectangle,
    stated_hw,
)

SHAPES = ("polygon", "rectangle", "circle", "mask")
IGNORE = "__ignore__"  # LabelMe's own name for it
DAMAGED = (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError)


def read(folder: Path, images: Path | None) -> Source:
    """Read the files in a folder and below it."""
    source, names = Source(), set()
    finder = Finder(images, folder)
    for file in list_files(folder, "**/*", (".json",)):
        document = _load(file)
        image = _image_of(file, str(document.get("imagePath", "")), finder)
        if image is None:
            source.leave_out(
                "images that are missing", f"{document.get('imagePath')} ({file.name})"
            )
            continue
        shapes = []
        for shape in document["shapes"]:
            kind = shape.get("shape_type") or "polygon"
            if kind in SHAPES:
                shapes.append(shape)
                names |= {str(shape["label"])} - {IGNORE}
            else:
                source.leave_out(
                    f"shapes that enclose nothing ({kind})", f"{file.name}: {shape['label']}"
                )
        hw = stated_hw(document.get("imageHeight"), document.get("imageWidth"))
        source.images.append(Annotated(image, file.stem, _reader(file, shapes), hw=hw))
    source.classes = sorted(names)
    return source


def _image_of(file: Path, name: str, finder: Finder) -> Path | None:
    beside = file.parent / name.replace("\\", "/")
    return beside if name and beside.is_file() else finder.find(name)


def _load(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(file).decode("utf-8-sig"))
        for shape in document["shapes"]:
            shape["label"], shape["points"]
        return document
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: not a LabelMe file ({type(error).__name__}: {error})") from None


def _reader(file: Path, shapes: list[dict[str, Any]]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        found = []
        for number, shape in enumerate(shapes, start=1):
            try:
                mask = _mask(shape, hw)
            except DAMAGED as error:
                raise DataError(f"{file}: shape {number} cannot be read ({error})") from None
            if mask is not None:
                label = str(shape["label"])
                found.append(Region(IGNORED if label == IGNORE else label, mask))
        return found

    return regions


def _mask(shape: dict[str, Any], hw: tuple[int, int]) -> np.ndarray | None:
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    check_coordinates(points.flat)
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return polygon_mask([points.ravel().tolist()], hw)
    if kind == "rectangle":
        return polygon_mask([rectangle(*points.min(axis=0), *points.max(axis=0))], hw)
    if kind == "circle":  # its centre and a point on it
        radius = float(np.linalg.norm(points[1] - points[0]))
        return polygon_mask([ellipse(*points[0], radius, radius)], hw)
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as picture:
        part = np.array(picture) > 0
    left, top = map(int, points[0])
    return pasted(part, left, top, hw)
