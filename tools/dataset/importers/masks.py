"""Colour masks: one picture for each image, in which every colour is a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.datasets import load_dataset
from data_iter.errors import DataError
from data_iter.image_files import read_colours
from data_iter.listing import IMAGE_SUFFIXES, LABEL_SUFFIXES, by_stem, list_files, shortened
from data_iter.text_lists import read_lines
from tools.shared.parallel import in_threads

from .regions import Annotated, Colour, Region, Source

ENDINGS = ("_L", "_mask", "_masks", "_label", "_labels", "_color", "_colour", "_gt", "_seg")
MOST = 255  # classes
NEAR = 24  # of 255: colours whose channels all differ by less count as one changed colour


def read(folder: Path, images: Path | None, colors: Path | None) -> Source:
    """Read ``folder/masks`` (or ``folder`` with ``images`` elsewhere).

    ``colors`` is a class table, or a list of lines ``RED GREEN BLUE NAME``. Without it, every
    colour that occurs is a class, named by its number ``#rrggbb``.
    """
    masks = folder / "masks" if (folder / "masks").is_dir() else folder
    pictures = images or folder / "images"
    if not pictures.is_dir():
        raise DataError(f"{pictures}: no such folder of images")
    found = by_stem(list_files(pictures, suffixes=IMAGE_SUFFIXES))
    source = Source()
    pairs = {}
    for file in list_files(masks, suffixes=LABEL_SUFFIXES):
        name = _image_name(file.stem, found)
        if name in found:
            pairs[name] = file
        else:
            source.leave_out("masks without an image", file.name)
    for file in list_files(masks):
        if not file.name.lower().endswith(LABEL_SUFFIXES):
            source.leave_out("masks of a lossy or unknown format", file.name)
    for name, file in found.items():
        if name not in pairs:
            source.leave_out("images without a mask", file.name)
    if not pairs:
        raise DataError(f"{folder}: no masks of images in it; expected images/NAME and masks/NAME")
    table = read_colors(colors) if colors else _discover([pairs[name] for name in sorted(pairs)])
    source.classes, source.colors = list(table.values()), list(table)
    source.images = [Annotated(found[n], n, _reader(pairs[n], table)) for n in sorted(pairs)]
    return source


def read_colors(path: Path) -> dict[Colour, str]:
    """Read the names of colours from a class table or a list."""
    if path.suffix in (".yaml", ".yml"):
        rows = load_dataset(path).classes
        for number, row in enumerate(rows):
            for other in rows[:number]:
                if other.color == row.color:
                    raise DataError(f"{path}: {other.name} and {row.name} have the same colour")
        return {row.color: row.name for row in rows}
    table: dict[Colour, str] = {}
    for number, text in read_lines(path):
        parts = text.replace(",", " ").split(maxsplit=3)
        if len(parts) != 4 or not all(p.isdigit() and int(p) < 256 for p in parts[:3]):
            raise DataError(
                f"{path}: line {number}: expected RED GREEN BLUE NAME, found {text[:80]!r}"
            )
        color = (int(parts[0]), int(parts[1]), int(parts[2]))
        if color in table or parts[3] in table.values():
            raise DataError(f"{path}: line {number}: {text!r} has a colour or a name of before")
        table[color] = parts[3]
    if not table:
        raise DataError(f"{path}: an empty list")
    return table


def _image_name(stem: str, images: dict[str, Path]) -> str:
    endings = [ending for ending in ENDINGS if stem.endswith(ending)]
    return stem if stem in images or not endings else stem[: -len(endings[0])]


def _codes(file: Path) -> np.ndarray:
    """Read a mask as (H, W) int32, red * 65536 + green * 256 + blue."""
    return read_colours(file).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _color(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _discover(files: Sequence[Path]) -> dict[Colour, str]:
    """List the colours of all masks, most frequent first; refuse those of a lossy mask."""

    def count(file: Path) -> Counter[int]:
        values, counts = np.unique(_codes(file), return_counts=True)
        return Counter(dict(zip(values.tolist(), counts.tolist())))

    total: Counter[int] = Counter()
    for file, found in zip(files, in_threads(count, files, "Looking for colours")):
        _check_apart(file, found)
        total += found
    if len(total) > MOST:
        raise DataError(f"{files[0].parent}: {len(total)} colours, expected at most {MOST} classes")
    return {_color(code): f"#{code:06x}" for code, _ in total.most_common()}


def _check_apart(file: Path, counts: Counter[int]) -> None:
    codes = [code for code, _ in counts.most_common(2000)]
    colors = np.array([_color(code) for code in codes], np.int32)
    kept: list[int] = []
    near = 0
    for number, color in enumerate(colors):
        if kept and (np.abs(colors[kept] - color).max(axis=1) < NEAR).any():
            near += 1
        else:
            kept.append(number)
    if near:
        raise DataError(
            f"{file}: {near} of its {len(counts)} colours are near others: a mask changed by JPEG "
            "compression or smooth resizing? Name the true colours with --colors if they are meant"
        )


def _reader(file: Path, table: dict[Colour, str]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        codes = _codes(file)
        if codes.shape != hw:
            raise DataError(
                f"{file}: the mask is {codes.shape[1]}x{codes.shape[0]}, its image {hw[1]}x{hw[0]} "
                "(width x height)"
            )
        known = {(r << 16) + (g << 8) + b: name for (r, g, b), name in table.items()}
        values, counts = np.unique(codes, return_counts=True)
        others = [(int(n), _color(int(v))) for v, n in zip(values, counts) if int(v) not in known]
        if others:
            near = sum(_is_near(color, table) for _, color in others)
            shown = shortened(f"{color} at {n} pixels" for n, color in sorted(others)[::-1])
            hint = f"; {near} of them near a class's: a lossy mask?" if near else ""
            raise DataError(f"{file}: {len(others)} colours that no class has: {shown}{hint}")
        return [Region(known[int(value)], codes == value) for value in values]

    return regions


def _is_near(color: Colour, table: dict[Colour, str]) -> bool:
    return any(max(abs(a - b) for a, b in zip(color, other)) < NEAR for other in table)
