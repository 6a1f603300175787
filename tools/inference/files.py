"""Which images are predicted, and which files their results are; without MXNet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data_iter.errors import DataError
from data_iter.image_files import read_label, read_size
from data_iter.listing import IMAGE_SUFFIXES, list_files


class Results(NamedTuple):
    """Where the results of an image go."""

    labels: Path
    overlay: Path
    probabilities: Path


def results_of(image: Path, out: Path) -> Results:
    """Name the results of an image in the folder ``out``."""
    endings = (".png", "_overlay.jpg", ".npz")
    return Results(*(out / f"{image.stem}{ending}" for ending in endings))


def find_images(path: Path, out: Path) -> tuple[list[Path], list[Path]]:
    """List the images of :func:`list_images` and check them by :func:`check_names`."""
    images, others = list_images(path, out)
    check_names(images)
    return images, others


def list_images(path: Path, *results: Path) -> tuple[list[Path], list[Path]]:
    """List the image ``path``, or the images in the folder ``path`` and below it, sorted.

    Clutter (:mod:`data_iter.listing`) is left out, and what lies in folders of ``results`` below
    ``path``. ``DataError`` if there is no image.

    Returns
    -------
    tuple of two lists
        The images, and the files whose suffix is not that of an image.
    """
    if path.is_file():
        return [path], []
    if not path.is_dir():
        raise DataError(f"{path}: no such image or folder")
    below = {out.resolve() for out in results if path.resolve() in out.resolve().parents}
    files = [f for f in list_files(path, "**/*") if below.isdisjoint(f.resolve().parents)]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    others = [file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{path}: no images in this folder ({', '.join(IMAGE_SUFFIXES)})")
    return images, others


def check_names(sources: Iterable[Path]) -> None:
    """Raise ``DataError`` if two sources have one name, so that their results would share it."""
    names: dict[str, Path] = {}
    for source in sources:
        other = names.setdefault(source.stem, source)
        if other != source:
            raise DataError(f"{other} and {source} would both give results named {source.stem}")


def check_targets(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Raise ``DataError`` if a source is one of the files to write, or in one of the folders."""
    places = {target.resolve() for target in targets}
    for source in sources:
        place = source.resolve()
        if not places.isdisjoint((place, *place.parents)):
            raise DataError(f"{source}: a result would replace it; choose another --out")


def is_predicted(image: Path, prediction: Path) -> bool:
    """Whether ``prediction`` is a whole label file of the image's size."""
    try:
        return read_label(prediction).shape == read_size(image)
    except DataError:
        return False
