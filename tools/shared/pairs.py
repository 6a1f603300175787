"""Pair label files with predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Union

from data_iter.datasets import layout_of
from data_iter.errors import DataError
from data_iter.listing import LABEL_SUFFIXES, list_files
from data_iter.text_lists import is_list, read_lines, read_names, read_pairs

CITYSCAPES_TRUTHS = ("_gtFine_labelIds.png", "_gtCoarse_labelIds.png")


Names = Union[Sequence[str], Mapping[str, Path], None]  # frames to score; None: all


class Pair(NamedTuple):
    """A frame's name, its label file and its prediction."""

    name: str
    truth: Path
    prediction: Path


def find_pairs(
    layout: str,
    ground_truth: Path,
    predictions: Path,
    names: Names = None,
    suffix: str = ".png",
) -> list[Pair]:
    """Find the prediction of every label file, sorted by name.

    Parameters
    ----------
    layout : str
        ``cityscapes``: ``*_gtFine_labelIds.png`` (or gtCoarse) anywhere below ``ground_truth``, and
        ``CITY_SEQUENCE_FRAME*.png`` anywhere below ``predictions``, as the official scorer matches
        them. Any other: ``NAME.png`` directly in both folders, label files in any format.
    names : sequence of str, or mapping of str to Path, optional
        Only these frames, or these with their label files: see :func:`read_frames`.
    suffix : str
        Of predictions: ``.npz`` for probability maps.

    Raises
    ------
    DataError
        There is no label file; a prediction is missing, has no label file, or has the same one as
        another prediction; a name has no label file.
    """
    layout_of(layout)
    if isinstance(names, Mapping):
        truths = names
        found = index(files(predictions, f"*{suffix}"), lambda file: file.stem)
    elif layout == "cityscapes":
        truths = index(
            (file for suffix in CITYSCAPES_TRUTHS for file in files(ground_truth, f"**/*{suffix}")),
            frame_name,
        )
        found = index(files(predictions, f"**/*{suffix}"), frame_name)
    else:
        truths = index(
            (f for f in files(ground_truth, "*") if f.suffix.lower() in LABEL_SUFFIXES),
            lambda file: file.stem,
        )
        found = index(files(predictions, f"*{suffix}"), lambda file: file.stem)
    if not truths:
        expected = (
            f"*{CITYSCAPES_TRUTHS[0]}" if layout == "cityscapes" else " ".join(LABEL_SUFFIXES)
        )
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
    """List what matches in ``folder``, sorted, without clutter; ``**/`` in front: at any depth."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return list_files(folder, pattern)


def index(paths: Iterable[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    """Key files by frame; ``DataError`` if two belong to the same frame."""
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(name_of(path), path)
        if other != path:
            raise DataError(f"{path}: {other} is of the same frame")
    return by_name


def read_frames(path: Path | None, root: Path) -> Names:
    """Read the frames to score: names, one per line, or a list file as for training.

    Parameters
    ----------
    path : Path, optional
        Lines ``NAME`` or ``IMAGE<tab>LABEL`` (``.csv``: a comma), relative to ``root``.
    root : Path
        The folder of label files; with a list file, the data set's folder.

    Returns
    -------
    None, sequence of str, or mapping of str to Path
        None without a file; a list file's label of each frame.
    """
    if path is None:
        return None
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    if not (is_list(path.name) and any(separator in line.text for line in read_lines(path))):
        return read_names(path)
    labels: dict[str, Path] = {}
    lines: dict[str, int] = {}
    try:
        listed = read_pairs(root, path)
    except DataError as error:
        raise DataError(f"{error}; with a list file, --ground-truth is the data root") from None
    for image, label, number in listed:
        if image.stem in lines:
            raise DataError(
                f"{path}: line {number}: {image.stem} is in line {lines[image.stem]} already"
            )
        lines[image.stem] = number
        if label is None or not label.is_file():
            raise DataError(f"{path}: line {number}: no such label: {label or 'none is given'}")
        labels[image.stem] = label
    return labels


def _count(names: Sequence[str]) -> str:
    return f" ({len(names)} such)" if len(names) > 1 else ""
