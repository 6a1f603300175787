"""COCO's instance annotations as label maps of the 21 VOC classes (section 4.3)."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from data_iter.image_files import check_regular
from train.atomic import atomic_write

# COCO's names where they differ from VOC's.
VOC_NAMES = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
IGNORED = 255  # crowds, and pixels of several objects of different classes


class Drawn(NamedTuple):
    """What became of a split: images drawn, and what was left out, by name.

    Attributes
    ----------
    images : int
        Label files written.
    categories : list of str
        COCO's categories that VOC has not: their objects are background.
    without : list of str
        Files of images that show no VOC class.
    listed : Path
        The file that lists both.
    """

    images: int
    categories: list[str]
    without: list[str]
    listed: Path


def draw_labels(
    root: Path,
    split: str,
    voc: DatasetSpec,
    out: Path,
    start: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Drawn:
    """Write ``out/labels/SPLIT/NAME.png`` for images that show a VOC class.

    ``root`` holds ``annotations/instances_SPLIT.json`` and the images in ``SPLIT/``, which appear
    as links in ``out/images/SPLIT``, so that ``out`` is a data set in the layout ``folders``. What
    is left out stands in ``out/left_out_SPLIT.txt``.
    """
    file = root / "annotations" / f"instances_{split}.json"
    if not file.is_file():
        raise DataError(f"{file}: no such annotation file; get it from https://cocodataset.org")
    coco = load_annotations(file)
    ids = {row.name: row.id for row in voc.classes}
    names = {category["id"]: str(category["name"]) for category in coco.loadCats(coco.getCatIds())}
    classes = {
        category: ids[VOC_NAMES.get(name, name)]
        for category, name in names.items()
        if VOC_NAMES.get(name, name) in ids
    }
    images = sorted({image for category in classes for image in coco.getImgIds(catIds=[category])})
    if not images:
        raise DataError(f"{file}: no image in it shows a class of VOC")
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True, exist_ok=True)
    advance = start(len(images))
    for image in coco.loadImgs(images):
        source = root / split / image["file_name"]
        if not source.is_file():
            raise DataError(f"{source}: no such image, but {file} has annotations of it")
        annotations = coco.loadAnns(coco.getAnnIds(image["id"], list(classes)))
        with atomic_write(out / "labels" / split / f"{source.stem}.png") as temporary:
            label = draw_label(coco, image, annotations, classes)
            temporary.write_bytes(cv2.imencode(".png", label)[1].tobytes())  # says why it can't
        link = out / "images" / split / source.name
        if not link.exists():
            link.unlink(missing_ok=True)  # of an earlier call, and the images have moved since
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


def draw_label(coco, image: dict, annotations: list[dict], classes: dict[int, int]) -> np.ndarray:
    """Draw one image's instances as (H, W) uint8: a VOC class, 0 background, 255 ignored.

    Ignored are crowds, which COCO outlines roughly, and pixels that instances of different classes
    both claim, since COCO does not say which of them is in front.
    """
    label = np.zeros((image["height"], image["width"]), np.uint8)
    for annotation in sorted(annotations, key=lambda a: a["iscrowd"]):
        mask = coco.annToMask(annotation).astype(bool)
        value = classes[annotation["category_id"]]
        if annotation["iscrowd"]:
            label[mask & (label == 0)] = IGNORED
        else:
            clash = mask & (label != 0) & (label != value)
            label[mask] = value
            label[clash] = IGNORED
    return label


def load_annotations(file: Path):
    """Read an annotation file as pycocotools' ``COCO``; ``DataError`` where it is none."""
    check_regular(file)
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco = COCO(str(file))
            for part in ("images", "annotations", "categories"):
                coco.dataset[part]
            return coco
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(f"{file}: not a COCO annotation file ({error})") from None
