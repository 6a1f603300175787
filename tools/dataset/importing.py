"""From annotations to a data set in the layout ``folders`` with its class table."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from configs.datasets import FOLDER, DatasetSpec, load_dataset
from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.image_files import exif_orientation, read_size
from data_iter.listing import LABEL_SUFFIXES, list_files
from tools.dataset.importers import coco, cvat, labelme, masks, yolo
from tools.dataset.importers.regions import Annotated, Source, draw
from tools.shared.parallel import in_threads
from train.atomic import atomic_folder

TABLE = "classes.yaml"
IGNORE_ID = 255
SPLITS = ("train", "val", "test")
VAL_SHARE = 0.15  # default share of the images


class Imported(NamedTuple):
    """The result: the class table, and by split the frames and (256,) pixels of each value."""

    spec: DatasetSpec
    frames: dict[str, int]
    pixels: dict[str, np.ndarray]


def read_source(path: Path, images: Path | None, colors: Path | None) -> tuple[str, Source]:
    """Detect the format of annotations by their files, and read them; also return its name."""
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder of images")
    if path.is_file():
        readers = {".json": ("COCO", coco.read), ".xml": ("CVAT", cvat.read)}
        if path.suffix.lower() not in readers:
            raise ConfigError(f"{path}: expected COCO's .json, CVAT's .xml, or a folder")
        name, reader = readers[path.suffix.lower()]
        return name, _checked(path, reader(path, images))
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    if any((path / name).is_file() for name in (*yolo.TABLES, "classes.txt")):
        return "YOLO", _checked(path, yolo.read(path, images))
    if list_files(path, "**/*", (".json",)):
        return "LabelMe", _checked(path, labelme.read(path, images))
    if list_files(path / "masks" if (path / "masks").is_dir() else path, suffixes=LABEL_SUFFIXES):
        return "colour masks", _checked(path, masks.read(path, images, colors))
    raise ConfigError(
        f"{path}: found no annotations: expected LabelMe's *.json, YOLO's data.yaml or "
        "classes.txt, or masks/NAME.png beside images/"
    )


def _checked(path: Path, source: Source) -> Source:
    if not source.images or not source.classes:
        missing = "; ".join(f"{why}: {len(names)}" for why, names in source.left_out.items())
        raise DataError(
            f"{path}: found {len(source.images)} images and {len(source.classes)} classes in it"
            + (f" ({missing})" if missing else "")
        )
    for name in source.classes:
        if source.classes.count(name) > 1:
            raise DataError(f"{path}: two classes have the name {name!r}")
    return source


def choose_splits(
    source: Source, val_share: float | None, seed: int, group: str | None
) -> tuple[dict[str, str], str]:
    """Give each image a split, and say how.

    The source's own split is used if it has images to train and to validate on, unless
    ``val_share`` or ``group`` is given; then :func:`assign_splits` draws the split. Images to which
    the source gives no split are to train on.
    """
    own = {item.name: item.split or "train" for item in source.images}
    if val_share is None and group is None and {"train", "val"} <= set(own.values()):
        return own, "split as in the source"
    share = VAL_SHARE if val_share is None else val_share
    return assign_splits(list(own), share, seed, group), f"validation images drawn, seed {seed}"


def assign_splits(
    names: Sequence[str], val_share: float, seed: int, group: str | None
) -> dict[str, str]:
    """Give each name ``train`` or ``val``.

    Parameters
    ----------
    names : sequence of str
        Of images.
    val_share : float
        Approximate share of the validation images, 0 to below 1.
    seed : int
        Seed of the draw.
    group : str, optional
        Regular expression; images for which it (its first group, if it has one) matches the same
        text stay together, as the frames of a video should.
    """
    if not 0 <= val_share < 1:
        raise ConfigError(f"--val-share {val_share}: expected 0 to below 1")
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_group(group, name), []).append(name)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    wanted, splits = round(val_share * len(names)), dict.fromkeys(names, "train")
    if val_share:
        wanted = max(1, wanted)
        if len(order) < 2:
            raise ConfigError(f"--val-share {val_share}: there is one group of images only")
    chosen = 0
    for key in order[:-1]:
        if chosen >= wanted:
            break
        splits |= dict.fromkeys(groups[key], "val")
        chosen += len(groups[key])
    return splits


def _group(pattern: str | None, name: str) -> str:
    if pattern is None:
        return name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ConfigError(f"--group {pattern}: not a regular expression ({error})") from None
    if match is None:
        raise ConfigError(f"--group {pattern}: does not match the name of image '{name}'")
    return match[1] if match.re.groups else match[0]


def write(
    source: Source, out: Path, splits: dict[str, str], unlabelled: str, by_area: bool
) -> Imported:
    """Write images, labels and ``classes.yaml`` as the folder ``out``, whole or not at all.

    Images are hard links where the file system can, else copies.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists already and is not empty; name another --out")
    if not unlabelled.strip():
        raise ConfigError(f"--unlabelled {unlabelled!r}: expected 'ignore' or the name of a class")
    classes = list(source.classes)
    if unlabelled not in ("ignore", *classes):
        classes.insert(0, unlabelled)
    if len(classes) > IGNORE_ID:
        raise DataError(f"{len(classes)} classes, expected at most {IGNORE_ID}")
    with atomic_folder(out) as new:
        new.mkdir()
        _write_table(new / TABLE, out.resolve().name, classes, source)
        try:
            spec = load_dataset(new / TABLE)
        except ConfigError as error:
            raise DataError(str(error).replace(str(new), str(out))) from None
        (new / TABLE).write_text(spec.dump(), encoding="utf-8")
        values = {name: value for value, name in enumerate(classes)}
        fill = values.get(unlabelled, IGNORE_ID)
        for split in set(splits.values()):
            for kind in ("images", "labels"):
                (new / kind / split).mkdir(parents=True)

        def write_one(item: Annotated) -> np.ndarray:
            label = _label(item, values, fill, by_area)
            split = splits[item.name]
            (new / "labels" / split / f"{item.name}.png").write_bytes(
                cv2.imencode(".png", label)[1].tobytes()
            )
            _link(item.image, new / "images" / split / f"{item.name}{item.image.suffix}")
            return np.bincount(label.ravel(), minlength=256)

        counts = in_threads(write_one, source.images, "Drawing")
    present = list(splits.values())
    frames = {split: present.count(split) for split in SPLITS if split in (*present, *SPLITS[:2])}
    pixels = {split: np.zeros(256, np.int64) for split in frames}
    for item, found in zip(source.images, counts):
        pixels[splits[item.name]] += found
    return Imported(spec, frames, pixels)


def _label(item: Annotated, values: dict[str, int], fill: int, by_area: bool) -> np.ndarray:
    """Draw an image's label (H, W); ``DataError`` if its annotations are of another size."""
    hw = read_size(item.image)
    if item.hw not in (None, hw):
        raise DataError(
            f"{item.image}: the image is {hw[1]}x{hw[0]}, its annotations are of "
            f"{item.hw[1]}x{item.hw[0]} (width x height)"
        )
    return draw(item.regions(hw), hw, values, fill, IGNORE_ID, by_area)


def drop_turned(source: Source) -> None:
    """Leave out images with an EXIF rotation: their outlines were drawn on the turned picture."""
    upright = []
    for item in source.images:
        if exif_orientation(item.image) == 1:
            upright.append(item)
        else:
            source.leave_out("images with an EXIF rotation (save them upright)", item.image.name)
    source.images = upright


def check_names(source: Source) -> None:
    """Raise ``DataError`` if two images would be written under one name."""
    seen: dict[str, Path] = {}
    for item in source.images:
        if item.name in seen:
            other = seen[item.name]
            where = "it is annotated twice" if other == item.image else f"{other} has the same name"
            raise DataError(f"{item.image}: {where}; keep or rename one")
        seen[item.name] = item.image


def _write_table(file: Path, name: str, classes: list[str], source: Source) -> None:
    color_of = dict(zip(source.classes, source.colors))
    rows = [
        {"name": row, "color": list(color_of[row])} if row in color_of else {"name": row}
        for row in classes
    ]
    word = re.sub(r"[^\w.-]+", "_", name) or "own"
    known = {table.stem for table in FOLDER.glob("*.yaml")}
    table = {"name": f"my_{word}" if word in known else word, "classes": rows}
    file.write_text(yaml.safe_dump(table, allow_unicode=True, sort_keys=False), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
