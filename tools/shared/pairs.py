"""Pair label files with predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_iter.errors import DataError
from data_iter.listing import list_files

CITYSCAPES_TRUTHS = ("_gtFine_labelIds.png", "_gtCoarse_labelIds.png")


class Pair(NamedTuple):
    """A frame's name, its label file and its prediction."""

    name: str
    truth: Path
    prediction: Path


def find_pairs(
    layout: str,
    ground_truth: Path,
    predictions: Path,
    names: Sequence[str] | None = None,
    suffix: str = ".png",
) -> list[Pair]:
    """Find the prediction of every label file, sorted by name.

    Parameters
    ----------
    layout : str
        ``cityscapes``: ``*_gtFine_labelIds.png`` (or gtCoarse) anywhere below ``ground_truth``, and
        ``CITY_SEQUENCE_FRAME*.png`` anywhere below ``predictions``, as the official scorer matches
        them. Any other: ``NAME.png`` directly in both folders.
    names : sequence of str, optional
        Only these frames.
    suffix : str
        Of predictions: ``.npz`` for probability maps.

    Raises
    ------
    DataError
        There is no label file; a prediction is missing, belongs to no label file, or to the same
        one as another; a name has no label file.
    """
    if layout == "cityscapes":
        truths = index(
            (file for suffix in CITYSCAPES_TRUTHS for file in files(ground_truth, f"**/*{suffix}")),
            frame_name,
        )
        found = index(files(predictions, f"**/*{suffix}"), frame_name)
    else:
        truths = index(files(ground_truth, "*.png"), lambda file: file.stem)
        found = index(files(predictions, f"*{suffix}"), lambda file: file.stem)
    if not truths:
        expected = f"*{CITYSCAPES_TRUTHS[0]}" if layout == "cityscapes" else "*.png"
        raise DataError(f"{ground_truth}: no label files ({expected}) in it")
    return match(truths, found, predictions, names)


def match(
    truths: Mapping[str, Path],
    found: Mapping[str, Path],
    predictions: Path,
    names: Sequence[str] | None = None,
) -> list[Pair]:
    """Pair files by frame, sorted; ``DataError`` as :func:`find_pairs` says.

    With ``names``, predictions of other frames may lie beside the wanted ones.
    """
    unknown = [] if names is not None else sorted(found.keys() - truths.keys())
    if unknown:
        raise DataError(f"{found[unknown[0]]}: a prediction without a label file{_count(unknown)}")
    wanted = sorted(truths if names is None else names)
    without_truth = [name for name in wanted if name not in truths]
    if without_truth:
        raise DataError(f"{without_truth[0]}: there is no label file{_count(without_truth)}")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"{predictions}: no prediction for {missing[0]} ({truths[missing[0]]})"
            + (f"; {len(missing)} of {len(wanted)} are missing" if len(missing) > 1 else "")
        )
    return [Pair(name, truths[name], found[name]) for name in wanted]


def frame_name(file: Path) -> str:
    """Cut ``CITY_SEQUENCE_FRAME`` from a Cityscapes file name."""
    return "_".join(file.stem.split("_")[:3])


def files(folder: Path, pattern: str) -> list[Path]:
    """List what matches in ``folder``, sorted; hidden files are unfinished ones."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(file for file in list_files(folder, pattern) if not file.name.startswith("."))


def index(paths: Iterable[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    """Key files by frame; ``DataError`` where two are of the same one."""
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(name_of(path), path)
        if other != path:
            raise DataError(f"{path}: {other} is of the same frame")
    return by_name


def read_names(path: Path) -> list[str]:
    """Read a list of frames, one a line (``ImageSets/Segmentation/val.txt`` of PASCAL VOC)."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error})") from None
    if not names:
        raise DataError(f"{path}: an empty list")
    return names


def _count(names: Sequence[str]) -> str:
    return f" ({len(names)} such)" if len(names) > 1 else ""
