"""CVAT for images 1.1: one XML file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from data_iter.errors import DataError
from data_iter.image_files import read_bytes

from .regions import (
    Annotated,
    Finder,
    Region,
    Source,
    ellipse,
    pasted,
    polygon_mask,
    rectangle,
    stated_hw,
)

SHAPES = ("polygon", "box", "ellipse", "mask")


def read(file: Path, images: Path | None) -> Source:
    """Read an XML file; shapes of a higher z_order cover those of a lower one."""
    root = _parse(file)
    source = Source()
    found = {shape.get("label", "") for shape in root.iterfind("image/*") if shape.tag in SHAPES}
    declared = [name.text or "" for name in root.iterfind(".//labels/label/name")]
    source.classes = [name for name in declared if name in found]
    source.classes += sorted(found - set(declared))
    for name in declared:
        if name not in found:
            source.leave_out("labels without a region", name)
    finder = Finder(images, file.parent / "images", file.parent)
    for entry in root.iterfind("image"):
        name = entry.get("name", "")
        path = finder.find(name)
        if path is None:
            source.leave_out("images that are missing", name)
            continue
        for shape in entry:
            if shape.tag not in (*SHAPES, "tag"):
                reason = f"shapes that enclose nothing ({shape.tag})"
                source.leave_out(reason, f"{name}: {shape.get('label')}")
        shapes = [shape for shape in entry if shape.tag in SHAPES]
        shapes.sort(key=lambda shape: _z_order(file, shape))
        hw = stated_hw(entry.get("height"), entry.get("width"))
        source.images.append(Annotated(path, path.stem, _reader(file, name, shapes), hw=hw))
    return source


def _z_order(file: Path, shape: Element) -> int:
    found = shape.get("z_order") or "0"
    if not found.lstrip("-").isdecimal():
        raise DataError(f"{file}: {shape.tag}: z_order {found!r}, expected a whole number")
    return int(found)


def _parse(file: Path) -> Element:
    encoded = read_bytes(file)
    if b"<!DOCTYPE" in encoded or b"<!ENTITY" in encoded:
        raise DataError(f"{file}: a document type, which CVAT does not write, is not read")
    try:
        root = ElementTree.fromstring(encoded)
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not an XML file ({error})") from None
    if root.tag != "annotations" or root.find("image") is None:
        raise DataError(f"{file}: not 'CVAT for images': it has no annotations/image")
    return root


def _reader(file: Path, name: str, shapes: list[Element]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        found = []
        for shape in shapes:
            try:
                mask = _mask(shape, hw)
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"{file}: image {name}: {shape.tag}: {error}") from None
            if mask is not None:
                found.append(Region(shape.get("label", ""), mask))
        return found

    return regions


def _mask(shape: Element, hw: tuple[int, int]) -> np.ndarray | None:
    def numbers(*keys: str) -> list[float]:
        return [float(shape.get(key, "")) for key in keys]

    if shape.tag == "polygon":
        points = shape.get("points", "").replace(";", ",").split(",")
        return polygon_mask([[float(value) for value in points]], hw)
    if shape.tag == "box":
        return polygon_mask([rectangle(*numbers("xtl", "ytl", "xbr", "ybr"))], hw)
    if shape.tag == "ellipse":
        return polygon_mask([ellipse(*numbers("cx", "cy", "rx", "ry"))], hw)
    left, top, width, height = map(int, numbers("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]  # outside and inside, alternately
    if sum(runs) != width * height or min(runs) < 0:
        raise ValueError(f"its runs have {sum(runs)} pixels, its box {width * height}")
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return pasted(part, left, top, hw)
