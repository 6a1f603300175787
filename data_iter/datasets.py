"""Find the (image, label) pairs of a split in a data set's official folder layout.

A layout is a function that lists a split and one that reads its label files, side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .image_files import read_colours, read_label
from .listing import list_files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LIST_SUFFIXES = (".txt", ".tsv", ".lst")
KITTI_VAL_SHARE = 5  # one frame in five of each category is held out
KITTI_SEED = 0


class Sample(NamedTuple):
    """One image, its label file (None where a split has none) and its name without suffixes."""

    image: Path
    label: Path | None
    name: str


class Layout(NamedTuple):
    """How a data set's folders are read."""

    find: Callable[[Path, str], list[Sample]]
    # (path, rows=slice(None)) -> those rows of (H, W) uint8, values of the class table's ids
    read_label: Callable[..., np.ndarray]


def find_samples(
    layout: str, root: Path, split: str, home: str = "", labelled: bool = True
) -> list[Sample]:
    """List the samples of ``split``, sorted by name.

    Parameters
    ----------
    layout : str
        A key of :data:`LAYOUTS`.
    root : Path
        The data set's folder.
    split : str
        A split of the layout or a list file (``.txt``, ``.tsv``, ``.lst``; relative to ``root``),
        or several joined by ``+``. A line of a list holds an image and, after a tab, its label,
        both relative to ``root``; ``#`` begins a comment line.
    home : str
        Where to get the data set and how to lay it out, for the error message.
    labelled : bool
        Whether an image without its label is an error.

    Raises
    ------
    DataError
        Where the folder, the split, an image's label or every image is missing.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout '{layout}': expected one of {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder. {home}".strip())
    samples = []
    for part in split.split("+"):
        found = (
            _from_list(root, root / part)
            if part.endswith(LIST_SUFFIXES)
            else LAYOUTS[layout].find(root, part)
        )
        if not found:
            raise DataError(f"{root}: found no images of split '{part}' in it. {home}".strip())
        samples += found
    if labelled:
        for sample in samples:
            if sample.label is None or not sample.label.is_file():
                expected = sample.label or "a label for it"
                raise DataError(f"{sample.image}: the image has no label; expected {expected}")
    return sorted(samples, key=lambda sample: sample.name)


def _cityscapes(root: Path, split: str) -> list[Sample]:
    """``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png``, ``gtFine/.../NAME_gtFine_labelIds.png``.

    ``train_extra`` has coarse labels only, in ``gtCoarse``; ``train_coarse`` and ``val_coarse`` are
    the coarse labels of ``train`` and ``val``.
    """
    folder = split[: -len("_coarse")] if split.endswith("_coarse") else split
    kind = "gtFine" if split == folder and split != "train_extra" else "gtCoarse"
    suffix = "_leftImg8bit.png"
    samples = []
    for image in list_files(root, f"leftImg8bit/{folder}/*/*{suffix}"):
        name = image.name[: -len(suffix)]
        label = root / kind / folder / image.parent.name / f"{name}_{kind}_labelIds.png"
        samples.append(Sample(image, label, name))
    return samples


def _folders(root: Path, split: str) -> list[Sample]:
    """``images/SPLIT/NAME.png`` (or ``.jpg``) and ``labels/SPLIT/NAME.png``."""
    return [
        Sample(image, root / "labels" / split / f"{image.stem}.png", image.stem)
        for image in list_files(root / "images" / split, "*")
        if image.suffix.lower() in IMAGE_SUFFIXES
    ]


def _kitti(root: Path, split: str) -> list[Sample]:
    """``training/image_2/um_000000.png``, ``training/gt_image_2/um_road_000000.png``; ``testing``.

    Splits: ``trainval`` (all of training), ``train`` and ``val``, ``test``. There is no official
    validation set: one frame in five of each category (um, umm, uu) is drawn with a fixed seed.
    """
    if split == "test":
        return [Sample(i, None, i.stem) for i in list_files(root, "testing/image_2/*.png")]
    categories: dict[str, list[Sample]] = {}
    for image in sorted(list_files(root, "training/image_2/*.png")):
        category, _, number = image.stem.partition("_")
        label = root / "training" / "gt_image_2" / f"{category}_road_{number}.png"
        categories.setdefault(category, []).append(Sample(image, label, image.stem))
    chosen = []
    random = np.random.default_rng(KITTI_SEED)
    for _, samples in sorted(categories.items()):
        held_out = set(random.permutation(len(samples))[: len(samples) // KITTI_VAL_SHARE].tolist())
        chosen += [
            sample
            for position, sample in enumerate(samples)
            if split == "trainval" or split == ("val" if position in held_out else "train")
        ]
    return chosen


def _read_kitti(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Official encoding: pixels with red are valid, those of them with blue are road.

    Green has no meaning there; a grey mask has it, and would pass for road wherever it isn't black.
    """
    red, green, blue = (channel > 0 for channel in np.moveaxis(read_colours(path)[rows], 2, 0))
    if (red & green).any():
        raise DataError(
            f"{path}: found pixels with red and green, expected red (background), red and blue "
            "(road) or black (ignored); a black-and-white mask, or one changed by JPEG compression?"
        )
    return np.where(red, blue.astype(np.uint8), np.uint8(255))


def _voc(root: Path, split: str) -> list[Sample]:
    """``ImageSets/Segmentation/SPLIT.txt``, ``JPEGImages/ID.jpg``, ``SegmentationClass/ID.png``.

    ``train_aug`` adds the annotations of Hariharan et al. (SBD) to ``train``: either the PNG
    re-release in ``SegmentationClassAug``, or the original ``.mat`` files in ``SBD/cls`` (or
    ``benchmark_RELEASE/dataset/cls``). Its images are those of both sources that are not in
    ``val``: 10582. ``trainval_aug`` adds ``val`` to it. ``coco`` is what ``tools/prepare_data.py
    coco --out ROOT/coco`` made of MS-COCO, all of its splits.
    """
    if split == "coco":
        return [
            s
            for part in list_files(root, "coco/images/*")
            for s in _folders(root / "coco", part.name)
        ]
    if split == "trainval_aug":
        return _voc(root, "train_aug") + _voc(root, "val")
    official = root / "SegmentationClass"
    if split != "train_aug":
        labels = {name: official / f"{name}.png" for name in _voc_names(root, split)}
    else:
        labels = {file.stem: file for file in _sbd_labels(root)}
        if not labels:
            return []
        labels |= {name: official / f"{name}.png" for name in _voc_names(root, "train")}
        for name in _voc_names(root, "val"):
            labels.pop(name, None)
    return [
        Sample(root / "JPEGImages" / f"{name}.jpg", None if split == "test" else label, name)
        for name, label in labels.items()
    ]


def _voc_names(root: Path, split: str) -> list[str]:
    file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    return file.read_text(encoding="ascii").split() if file.is_file() else []


def _sbd_labels(root: Path) -> list[Path]:
    places = ("SegmentationClassAug/*.png", "SBD/cls/*.mat", "benchmark_RELEASE/dataset/cls/*.mat")
    return next((found for place in places if (found := list(list_files(root, place)))), [])


def _read_voc(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Palette or grey PNG, or SBD's ``.mat`` with the map in ``GTcls.Segmentation``."""
    if path.suffix != ".mat":
        return read_label(path, rows)
    from scipy.io import loadmat

    try:
        label = loadmat(path)["GTcls"]["Segmentation"][0, 0]
        return np.ascontiguousarray(label[rows], np.uint8)
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(
            f"{path}: not a whole .mat file with GTcls.Segmentation ({error})"
        ) from None


LAYOUTS: dict[str, Layout] = {
    "cityscapes": Layout(_cityscapes, read_label),
    "folders": Layout(_folders, read_label),
    "kitti": Layout(_kitti, _read_kitti),
    "voc": Layout(_voc, _read_voc),
}


def _from_list(root: Path, file: Path) -> list[Sample]:
    if not file.is_file():
        raise DataError(f"{file}: no such list file")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a list in UTF-8 ({error})") from None
    samples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        image, *label = line.rstrip().split("\t")
        if len(label) > 1:
            raise DataError(f"{file}: line {number}: expected IMAGE<tab>LABEL, found {line!r}")
        if not (root / image).is_file():
            hint = "" if label else " (expected IMAGE<tab>LABEL)"
            raise DataError(f"{file}: line {number}: no such image: {root / image}{hint}")
        samples.append(Sample(root / image, root / label[0] if label else None, Path(image).stem))
    return samples
