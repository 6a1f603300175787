"""The common form of all annotation formats: named regions of images, drawn into label maps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from data_iter.listing import IMAGE_SUFFIXES, list_files

IGNORED = None  # category of a region whose pixels are ignored
FARTHEST = 1e6  # pixels from the corner; larger coordinates crash the C code of pycocotools
Colour = tuple[int, int, int]


class Region(NamedTuple):
    """A part of an image: its category and its mask (H, W) bool."""

    category: str | None
    mask: np.ndarray


class Annotated(NamedTuple):
    """An image, and a function from its (height, width) to its regions in the file's order.

    ``split`` is the source's own: ``train``, ``val``, ``test``, or empty. ``hw`` is the (height,
    width) that the source states; None: it states none.
    """

    image: Path
    name: str
    regions: Callable[[tuple[int, int]], Sequence[Region]]
    split: str = ""
    hw: tuple[int, int] | None = None


@dataclass
class Source:
    """The result of a format's reader.

    Attributes
    ----------
    images : list of Annotated
        In any order.
    classes : list of str
        Names, in the source's order.
    colors : list of tuple
        RGB of each class; empty where the source has none.
    left_out : dict of str to list of str
        Names of what is left out, by the reason.
    """

    images: list[Annotated] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    colors: list[Colour] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Record something that is left out."""
        self.left_out.setdefault(reason, []).append(name)


def stated_hw(height: Any, width: Any) -> tuple[int, int] | None:
    """Read the size that a source states for an image; None if it is missing, 0 or not a number."""
    try:
        return (int(height), int(width)) if int(height) > 0 and int(width) > 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


class Finder:
    """Finds image files by the names that annotations give them, in a few likely folders."""

    def __init__(self, asked: Path | None, *folders: Path):
        self._folders = [*([asked] if asked else []), *folders]
        self._by_name: dict[str, Path] = {}
        for folder in reversed(self._folders):
            self._by_name |= {
                file.name: file for file in list_files(folder, "**/*", IMAGE_SUFFIXES)
            }

    def find(self, name: str) -> Path | None:
        """Find the file of a name that may begin with folders, also in Windows' notation."""
        name = name.replace("\\", "/")
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        return self._by_name.get(name.rsplit("/", 1)[-1])


def check_coordinates(values: Iterable[float]) -> None:
    """Raise ``ValueError`` unless all are finite and their absolutes below :data:`FARTHEST`."""
    for value in values:
        if not abs(value) < FARTHEST:  # true for NaN too
            raise ValueError(f"coordinate {value:g}, expected pixels below {FARTHEST:g}")


def polygon_mask(polygons: Iterable[Any], hw: tuple[int, int]) -> np.ndarray | None:
    """Fill polygons, each a flat list x, y, x, y ... in pixels, as COCO's own tools do.

    Returns (H, W) bool, or None if no polygon has three points. ``ValueError`` if an x has no y,
    and as :func:`check_coordinates`.
    """
    polygons = list(polygons)
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("an odd number of coordinates")
    whole = [list(map(float, polygon)) for polygon in polygons if len(polygon) >= 6]
    if not whole:
        return None
    check_coordinates(itertools.chain.from_iterable(whole))
    encoded = coco_mask.merge(coco_mask.frPyObjects(whole, *hw))
    return coco_mask.decode(encoded).astype(bool)


def pasted(part: np.ndarray, left: int, top: int, hw: tuple[int, int]) -> np.ndarray:
    """Lay a mask (h, w) bool into an empty one (H, W); what exceeds it at the right is cut off.

    ``ValueError`` if it begins outside.
    """
    if not (0 <= left < hw[1] and 0 <= top < hw[0]):
        raise ValueError(f"a mask at x {left}, y {top}, expected inside {hw[1]}x{hw[0]} pixels")
    whole = np.zeros(hw, bool)
    target = whole[top : top + part.shape[0], left : left + part.shape[1]]
    target[:] = part[: target.shape[0], : target.shape[1]]
    return whole


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    """Write a box as a polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def ellipse(x: float, y: float, rx: float, ry: float) -> list[float]:
    """Write an ellipse as a polygon of 72 corners; ``ValueError`` as above."""
    check_coordinates((x, y, rx, ry))  # NumPy would warn of inf
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1).ravel().tolist()


def draw(
    regions: Sequence[Region],
    hw: tuple[int, int],
    values: dict[str, int],
    unlabelled: int,
    ignore: int,
    by_area: bool,
) -> np.ndarray:
    """Draw regions over each other as (H, W) uint8 class values.

    Later regions cover earlier ones; with ``by_area`` smaller ones cover larger ones. Regions
    without a category (COCO's crowds) cover only pixels that no other region covers.
    """
    label = np.full(hw, unlabelled, np.uint8)
    order = sorted(regions, key=lambda r: (r.category is not IGNORED, -r.mask.sum() * by_area))
    for region in order:
        label[region.mask] = ignore if region.category is IGNORED else values[region.category]
    return label
