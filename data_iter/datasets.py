"""Find the (image, label) pairs of a split in a data set's official folder layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LIST_SUFFIXES = (".txt", ".tsv", ".lst")


class Sample(NamedTuple):
    """One image, its label file (None where a split has none) and its name without suffixes."""

    image: Path
    label: Path | None
    name: str


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
        A split of the layout, several joined by ``+``, or a list file (``.txt``, ``.tsv``, ``.lst``;
        relative to ``root``): per line an image and, after a tab, its label, relative to ``root``.
    home : str
        Where to get the data set and how to lay it out, for the error message.
    labelled : bool
        Whether an image without its label is an error.

    Raises
    ------
    DataError
        Where the folder, the split, an image's label or every image is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such data folder. {home}".strip())
    if split.endswith(LIST_SUFFIXES):
        samples = _from_list(root, root / split)
    else:
        find = LAYOUTS[layout]
        samples = [sample for part in split.split("+") for sample in find(root, part)]
    if not samples:
        raise DataError(f"{root}: found no images of split '{split}' in it. {home}".strip())
    if labelled:
        for sample in samples:
            if sample.label is None or not sample.label.is_file():
                expected = sample.label or "a label for it"
                raise DataError(f"{sample.image}: the image has no label; expected {expected}")
    return sorted(samples, key=lambda sample: sample.name)


def _cityscapes(root: Path, split: str) -> list[Sample]:
    """``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png``, ``gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png``.

    The split ``train_extra`` has coarse labels only, in ``gtCoarse``.
    """
    kind = "gtCoarse" if split == "train_extra" else "gtFine"
    suffix = "_leftImg8bit.png"
    samples = []
    for image in root.glob(f"leftImg8bit/{split}/*/*{suffix}"):
        name = image.name[: -len(suffix)]
        label = root / kind / split / image.parent.name / f"{name}_{kind}_labelIds.png"
        samples.append(Sample(image, label, name))
    return samples


def _folders(root: Path, split: str) -> list[Sample]:
    """``images/SPLIT/NAME.png`` (or ``.jpg``) and ``labels/SPLIT/NAME.png``."""
    return [
        Sample(image, root / "labels" / split / f"{image.stem}.png", image.stem)
        for image in (root / "images" / split).glob("*")
        if image.suffix.lower() in IMAGE_SUFFIXES
    ]


LAYOUTS: dict[str, Callable[[Path, str], list[Sample]]] = {
    "cityscapes": _cityscapes,
    "folders": _folders,
}


def _from_list(root: Path, file: Path) -> list[Sample]:
    if not file.is_file():
        raise DataError(f"{file}: no such list file")
    samples = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        image, *label = line.rstrip().split("\t")
        if len(label) > 1:
            raise DataError(f"{file}: line {number}: expected IMAGE<tab>LABEL, found {line!r}")
        if not (root / image).is_file():
            raise DataError(f"{file}: line {number}: no such image: {root / image}")
        samples.append(Sample(root / image, root / label[0] if label else None, Path(image).stem))
    return samples
