"""YOLO segmentation: one text file per image, one polygon per line, as shares of the size."""

from __future__ import annotations

from pathlib import Path

from configs.text_files import read_yaml
from data_iter.errors import DataError
from data_iter.listing import IMAGE_SUFFIXES, list_files
from data_iter.text_lists import Line, read_lines

from .regions import Annotated, Region, Source, polygon_mask

TABLES = ("data.yaml", "data.yml", "dataset.yaml")
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}  # by folder
BOX = 4  # numbers in a line with a box and no outline


def read(folder: Path, images: Path | None) -> Source:
    """Read a folder whose ``labels`` folders mirror its ``images`` folders.

    Images below a folder ``train``, ``val`` (``valid``) or ``test`` belong to that split.
    """
    names = _names(folder)
    source, used = Source(), set()
    for image in list_files(images or folder, "**/*", IMAGE_SUFFIXES):
        file = _label_of(image, folder)
        lines = read_lines(file) if file else []
        if not file:
            source.leave_out("images without a text file, taken as unlabelled", image.name)
        polygons = []
        for line in lines:
            number, points = _polygon(file, line, len(names))
            if len(points) == BOX:
                source.leave_out("lines with a box and no outline", f"{file.name}: {names[number]}")
            else:
                used.add(number)
                polygons.append((names[number], points))
        split = _split_of(image.relative_to(images or folder))
        source.images.append(Annotated(image, image.stem, _reader(polygons), split))
    for number, name in enumerate(names):
        if number in used:
            source.classes.append(name)
        else:
            source.leave_out("classes without a region", name)
    return source


def _split_of(image: Path) -> str:
    return next((SPLITS[part] for part in image.parts[:-1] if part in SPLITS), "")


def _names(folder: Path) -> list[str]:
    for name in TABLES:
        if (folder / name).is_file():
            document = read_yaml(folder / name)
            names = document.get("names") if isinstance(document, dict) else None
            if isinstance(names, dict):
                if set(names) != set(range(len(names))):
                    raise DataError(f"{folder / name}: names: expected the keys 0, 1, 2 ...")
                names = [names[key] for key in sorted(names)]
            if not isinstance(names, list) or not names:
                raise DataError(f"{folder / name}: expected 'names', a list of the classes")
            return [str(entry) for entry in names]
    if (folder / "classes.txt").is_file():
        return [line.text.strip() for line in read_lines(folder / "classes.txt")]
    raise DataError(f"{folder}: expected data.yaml with 'names', or classes.txt, in it")


def _label_of(image: Path, folder: Path) -> Path | None:
    """Find ``labels/x.txt`` of ``images/x.jpg``, or ``x.txt`` beside it."""
    parts = list(image.parts)
    places = [image.with_suffix(".txt")]
    for position in reversed(range(len(parts) - 1)):
        if parts[position] == "images":
            parts[position] = "labels"
            places.insert(0, Path(*parts).with_suffix(".txt"))
            break
    places.append(folder / "labels" / f"{image.stem}.txt")
    return next((place for place in places if place.is_file()), None)


def _polygon(file: Path | None, line: Line, classes: int) -> tuple[int, list[float]]:
    try:
        first, *points = line.text.split()
        number, values = int(first), [float(point) for point in points]
    except ValueError:
        raise DataError(f"{file}: line {line.number}: expected CLASS X Y X Y ... ") from None
    if not 0 <= number < classes:
        raise DataError(
            f"{file}: line {line.number}: class {number}, expected 0..{classes - 1} of the names"
        )
    if len(values) != BOX and (len(values) < 6 or len(values) % 2):
        raise DataError(
            f"{file}: line {line.number}: {len(values)} numbers, expected x and y of three points "
            "or more"
        )
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise DataError(f"{file}: line {line.number}: expected shares of the image, 0..1")
    return number, values


def _reader(polygons: list[tuple[str, list[float]]]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        found = []
        for name, points in polygons:
            scaled = [value * hw[1 - index % 2] for index, value in enumerate(points)]
            mask = polygon_mask([scaled], hw)
            if mask is not None:
                found.append(Region(name, mask))
        return found

    return regions
