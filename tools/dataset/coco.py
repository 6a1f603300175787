"""COCO's instance annotations as label maps of the 21 VOC classes (section 4.3)."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from data_iter.image_files import read_bytes
from tools.dataset.importers.regions import polygon_mask, stated_hw
from train.atomic import atomic_write

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# COCO's names where they differ from VOC's.
VOC_NAMES = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id", "name"),
}
IGNORED = 255  # crowds, and pixels of several objects of different classes


class Drawn(NamedTuple):
    """The result of a split: images drawn, and the names of what was left out.

    Attributes
    ----------
    images : int
        Label files written.
    categories : list of str
        COCO's categories that VOC does not have: their objects are background.
    without : list of str
        Files of images that show no VOC class.
    listed : Path
        The file that lists both.
    """

    images: int
    categories: list[str]
    without: list[str]
    listed: Path


def _images_of(coco: COCO, classes: Collection[int], folder: Path, file: Path) -> list[int]:
    """List the images in ``folder`` that show a class; ``DataError`` if one can't be used."""
    shown = {image for category in classes for image in coco.getImgIds(catIds=[category])}
    if not shown:
        raise DataError(f"{file}: no image in it shows a class of VOC")
    if unlisted := sorted(map(str, shown - coco.imgs.keys())):
        raise DataError(f"{file}: has annotations of image {unlisted[0]}, which it does not list")
    images = sorted(shown)
    for image in coco.loadImgs(images):
        source = folder / str(image["file_name"])
        if not source.is_file():
            raise DataError(f"{source}: no such image, but {file} has annotations of it")
        if stated_hw(image.get("height"), image.get("width")) is None:
            raise DataError(f"{file}: image {image['id']}: expected its height and width in pixels")
    return images


def draw_labels(
    root: Path,
    split: str,
    voc: DatasetSpec,
    out: Path,
    start: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Drawn:
    """Write ``out/labels/SPLIT/NAME.png`` for images that show a VOC class.

    ``root`` holds ``annotations/instances_SPLIT.json`` and the images in ``SPLIT/``, which appear
    as links in ``out/images/SPLIT``, so that ``out`` is a data set in the layout ``folders``.
    ``out/left_out_SPLIT.txt`` lists what is left out.
    """
    file = root / "annotations" / f"instances_{split}.json"
    if not file.is_file():
        raise DataError(f"{file}: no such annotation file; get it from https://cocodataset.org")
    coco = load_annotations(file)
    ids = {row.name: row.id for row in voc.classes}
    names = {number: f"category {number}, which has no name" for number in coco.catToImgs}
    names |= {category["id"]: str(category["name"]) for category in coco.cats.values()}
    classes = {
        category: ids[VOC_NAMES.get(name, name)]
        for category, name in names.items()
        if VOC_NAMES.get(name, name) in ids
    }
    images = _images_of(coco, classes, root / split, file)
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True, exist_ok=True)
    advance = start(len(images))
    for image in coco.loadImgs(images):
        source = root / split / str(image["file_name"])
        annotations = coco.loadAnns(coco.getAnnIds(image["id"], list(classes)))
        with atomic_write(out / "labels" / split / f"{source.stem}.png") as temporary:
            label = draw_label(image, annotations, classes, file)
            temporary.write_bytes(cv2.imencode(".png", label)[1].tobytes())  # says why it can't
        link = out / "images" / split / source.name
        if not link.exists():
            link.unlink(missing_ok=True)  # a link of an earlier call whose image has moved since
            link.symlink_to(os.path.relpath(source, link.parent.resolve()))
        advance()
    return _list_left_out(
        len(images),
        sorted(name for category, name in names.items() if category not in classes),
        sorted(str(coco.imgs[n]["file_name"]) for n in coco.imgs.keys() - set(images)),
        out / f"left_out_{split}.txt",
    )


def _list_left_out(images: int, categories: list[str], without: list[str], file: Path) -> Drawn:
    lines = [f"category\t{name}\n" for name in categories]
    lines += [f"image\t{name}\n" for name in without]
    with atomic_write(file) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return Drawn(images, categories, without, file)


def draw_label(
    image: dict, annotations: list[dict], classes: dict[int, int], source: Path
) -> np.ndarray:
    """Draw one image's instances as (H, W) uint8: a VOC class, 0 background, 255 ignored.

    Crowds are ignored, because COCO outlines them roughly. So are pixels that instances of
    different classes both claim, because COCO does not say which one is in front.
    """
    label = np.zeros((int(image["height"]), int(image["width"])), np.uint8)
    for annotation in sorted(annotations, key=lambda a: a.get("iscrowd", 0)):
        mask = mask_of(annotation, label.shape, source)
        if mask is None:
            continue
        value = classes[annotation["category_id"]]
        if annotation.get("iscrowd"):
            label[mask & (label == 0)] = IGNORED
        else:
            clash = mask & (label != 0) & (label != value)
            label[mask] = value
            label[clash] = IGNORED
    return label


def mask_of(annotation: dict, hw: tuple[int, int], source: Path) -> np.ndarray | None:
    """Draw an annotation's segmentation as (H, W) bool; None if it encloses nothing.

    Raises a ``DataError`` that names the annotation of the file ``source`` if its polygons or run
    lengths cannot be read, or belong to another image size: pycocotools would return uninitialised
    memory.
    """
    outline = annotation.get("segmentation")
    try:
        if not outline:
            return None
        if not isinstance(outline, dict):
            return polygon_mask(outline, hw)
        if tuple(outline["size"]) != hw:
            raise ValueError(f"size {outline['size']}, expected {list(hw)} (height, width)")
        counts = outline["counts"]
        runs = counts if isinstance(counts, list) else run_lengths(counts)
        if min(runs) < 0 or sum(runs) != hw[0] * hw[1]:
            raise ValueError(f"run lengths of {sum(runs)} pixels, expected {hw[0] * hw[1]}")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(hw, order="F")
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        number = annotation.get("id")
        raise DataError(
            f"{source}: annotation {number}: its segmentation cannot be read ({error})"
        ) from None


def run_lengths(counts: str | bytes) -> list[int]:
    """Decode COCO's compressed run lengths (``rleFrString`` of its C code).

    Each character from ``0`` on holds five bits; a sixth bit means that more follow; the highest of
    the last five is the sign. From the fourth number on, a number is stored as the difference from
    the one two places before it.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode() if isinstance(counts, str) else counts:
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError(f"run lengths with the character {chr(code)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def load_annotations(file: Path):
    """Read an annotation file as pycocotools' ``COCO``; ``DataError`` if it is not one."""
    from pycocotools.coco import COCO

    try:
        document = json.loads(read_bytes(file).decode("utf-8-sig"))
        for part, keys in NEEDED.items():
            for entry in document[part]:
                missing = [key for key in keys if key not in entry]
                if missing:
                    raise ValueError(f"{part}: an entry without {missing[0]}")
            if len({type(entry["id"]) for entry in document[part]}) > 1:
                raise ValueError(f"{part}: ids of several types")
            counts = Counter(entry["id"] for entry in document[part])
            if repeated := [number for number, count in counts.items() if count > 1]:
                raise ValueError(f"{part}: two have the id {repeated[0]}")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco = COCO()
            coco.dataset = document
            coco.createIndex()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: not a COCO annotation file ({error})") from None
    return coco
