"""Find the (image, label) pairs of a split in a data set's official folder layout.

A layout is a pair of functions: one lists a split, one reads its label files.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .image_files import read_colours, read_label
from .listing import IMAGE_SUFFIXES, LABEL_SUFFIXES, by_stem, list_files, list_folders, shortened
from .sample import Sample
from .text_lists import is_list, read_names, read_pairs

KITTI_VAL_SHARE = 5  # one frame in five of each category is held out
KITTI_SEED = 0


class Layout(NamedTuple):
    """How to read a data set's folders."""

    find: Callable[[Path, str], list[Sample]]
    # (path, rows=slice(None)) -> those rows of (H, W) uint8, values of the class table's ids
    read_label: Callable[..., np.ndarray]
    expected: str  # the folders, for messages


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
        A split of the layout, a list file (:func:`data_iter.text_lists.read_pairs`; relative to
        ``root``), or several joined by ``+``.
    home : str
        Where to get the data set and how to lay it out, for the error message.
    labelled : bool
        Whether an image without its label is an error.

    Raises
    ------
    DataError
        The folder, the split or an image's label is missing, or there are no images.
    """
    known = layout_of(layout)
    home = home or f"Expected in it: {known.expected}"
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder. {home}")
    samples = []
    for part in split.split("+"):
        found = _from_list(root, part) if is_list(part) else known.find(root, part)
        if not found:
            hint = ""
            if layout == "kitti" and part == "val" and known.find(root, "train"):
                hint = f" (one frame in {KITTI_VAL_SHARE} of each category, and there are fewer)"
            raise DataError(f"{root}: found no images of split '{part}' in it{hint}. {home}")
        samples += found
    if labelled:
        for sample in samples:
            if missing := without_label(sample):
                raise DataError(missing)
    return sorted(samples, key=lambda sample: sample.name)


def layout_of(name: str) -> Layout:
    """Return a layout by its name; ``DataError`` where there is none of it."""
    if name not in LAYOUTS:
        raise DataError(f"layout '{name}': expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def without_label(sample: Sample) -> str:
    """Say that a sample has no label file, and which one was expected; empty if it has one."""
    if sample.label is None:
        return f"{sample.image}: the image has no label; expected a label for it"
    if sample.label.is_file():
        return ""
    others = sorted(f.name for f in sample.label.parent.glob(f"{glob.escape(sample.label.stem)}.*"))
    found = f"; found {shortened(others)}, labels are {' '.join(LABEL_SUFFIXES)}" if others else ""
    return f"{sample.image}: the image has no label; expected {sample.label}{found}"


def left_out(layout: str, root: Path, split: str) -> tuple[list[str], list[str]]:
    """List the unused files in a split's folders: label files without an image, and others.

    Only the layout ``folders`` takes whole folders; the others name their files.
    """
    if layout != "folders" or is_list(split):
        return [], []
    images, labels = root / "images" / split, root / "labels" / split
    names = {file.stem for file in list_files(images, suffixes=IMAGE_SUFFIXES)}
    alone, others = [], []
    for folder, suffixes in ((images, IMAGE_SUFFIXES), (labels, LABEL_SUFFIXES)):
        for file in list_files(folder, "**/*"):
            shown = str(file.relative_to(root))
            if file.parent != folder or not file.name.lower().endswith(suffixes):
                others.append(shown)
            elif file.stem not in names:
                alone.append(shown)
    return alone, others


def _cityscapes(root: Path, split: str) -> list[Sample]:
    """``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png``, ``gtFine/.../NAME_gtFine_labelIds.png``.

    ``train_extra`` has coarse labels only, in ``gtCoarse``; ``train_coarse`` and ``val_coarse`` are
    the coarse labels of ``train`` and ``val``.
    """
    folder = split[: -len("_coarse")] if split.endswith("_coarse") else split
    kind = "gtFine" if split == folder and split != "train_extra" else "gtCoarse"
    suffix = "_leftImg8bit.png"
    samples = []
    for image in list_files(root / "leftImg8bit" / folder, f"*/*{suffix}"):
        name = image.name[: -len(suffix)]
        label = root / kind / folder / image.parent.name / f"{name}_{kind}_labelIds.png"
        samples.append(Sample(image, label, name))
    return samples


def _folders(root: Path, split: str) -> list[Sample]:
    """``images/SPLIT/NAME.*`` and ``labels/SPLIT/NAME.*``, each in any format that is read."""
    images = by_stem(list_files(root / "images" / split, suffixes=IMAGE_SUFFIXES))
    labels = by_stem(list_files(root / "labels" / split, suffixes=LABEL_SUFFIXES))
    return [
        Sample(image, labels.get(name, root / "labels" / split / f"{name}.png"), name)
        for name, image in images.items()
    ]


def _kitti(root: Path, split: str) -> list[Sample]:
    """``training/image_2/um_000000.png``, ``training/gt_image_2/um_road_000000.png``; ``testing``.

    Splits: ``trainval`` (all of training), ``train`` and ``val``, ``test``. There is no official
    validation set: one frame in five of each category (um, umm, uu) is drawn with a fixed seed.
    """
    if split == "test":
        images = list_files(root / "testing" / "image_2", "*.png")
        return [Sample(image, None, image.stem) for image in images]
    categories: dict[str, list[Sample]] = {}
    for image in list_files(root / "training" / "image_2", "*.png"):
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

    Green has no meaning. A grey mask has green, and would read as road where it isn't black.
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
        parts = list_folders(root / "coco" / "images")
        return [sample for part in parts for sample in _folders(root / "coco", part.name)]
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
    return read_names(file) if file.is_file() else []


def _sbd_labels(root: Path) -> list[Path]:
    places = ("SegmentationClassAug/*.png", "SBD/cls/*.mat", "benchmark_RELEASE/dataset/cls/*.mat")
    return next((found for place in places if (found := list_files(root, place))), [])


def _read_voc(path: Path, rows: slice = slice(None)) -> np.ndarray:
    """Palette or grey PNG, or SBD's ``.mat`` with the map in ``GTcls.Segmentation``."""
    if path.suffix != ".mat":
        return read_label(path, rows)
    from scipy.io import loadmat

    try:
        label = loadmat(path)["GTcls"]["Segmentation"][0, 0]
        return np.ascontiguousarray(label[rows], np.uint8)
    except Exception as error:  # zlib.error, MatReadError and more: SciPy names no common class
        raise DataError(
            f"{path}: not a whole .mat file with GTcls.Segmentation ({error})"
        ) from None


LAYOUTS: dict[str, Layout] = {
    "cityscapes": Layout(
        _cityscapes,
        read_label,
        "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png",
    ),
    "folders": Layout(
        _folders,
        read_label,
        f"images/SPLIT/NAME ({' '.join(IMAGE_SUFFIXES)}) and labels/SPLIT/NAME "
        f"({' '.join(LABEL_SUFFIXES)}: one channel, 8 bits, the value is the class)",
    ),
    "kitti": Layout(
        _kitti,
        _read_kitti,
        "training/image_2/um_000000.png and training/gt_image_2/um_road_000000.png",
    ),
    "voc": Layout(
        _voc,
        _read_voc,
        "JPEGImages/ID.jpg, SegmentationClass/ID.png and ImageSets/Segmentation/SPLIT.txt",
    ),
}


def _from_list(root: Path, name: str) -> list[Sample]:
    file = root / name
    if not file.is_file():
        raise DataError(f"{file}: no such list file")
    return [Sample(image, label, image.stem) for image, label, _ in read_pairs(root, file)]
