"""Look at every file of a data set's split before a long run relies on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.datasets import LAYOUTS, Sample, find_samples
from data_iter.errors import DataError
from data_iter.files import exif_orientation
from data_iter.frames import FileFrames
from data_iter.labels import outside_table
from train.machine import allowed_cores

# Images by the data sets' own pages. Of Cityscapes' 20000 coarse ones, 19998 are handed out.
OFFICIAL = {
    ("cityscapes", "train"): (2975,),
    ("cityscapes", "val"): (500,),
    ("cityscapes", "test"): (1525,),
    ("cityscapes", "train_extra"): (20000, 19998),
    ("kitti", "trainval"): (289,),
    ("kitti", "test"): (290,),
    ("voc", "train"): (1464,),
    ("voc", "val"): (1449,),
    ("voc", "test"): (1456,),
    ("voc", "train_aug"): (10582,),
}


@dataclass
class Report:
    """What was found in one split."""

    split: str
    images: int = 0
    labels: int = 0
    official: tuple[int, ...] = ()
    sizes: Counter = field(default_factory=Counter)  # (height, width) -> images
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # of label values
    problems: list[str] = field(default_factory=list)


def present_splits(spec: DatasetSpec, root: Path) -> list[str]:
    """List the splits of the data set's layout that have images."""
    if spec.layout == "folders":
        return sorted(path.name for path in (root / "images").glob("*") if path.is_dir())
    splits = [split for layout, split in OFFICIAL if layout == spec.layout]
    return [split for split in splits if LAYOUTS[spec.layout].find(root, split)]


def check_split(
    spec: DatasetSpec,
    root: Path,
    split: str,
    compare_count: bool = True,
    start: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Report:
    """Read every image and label of ``split``; nothing is changed.

    ``start`` gets the number of files and returns what is called after each one.
    """
    labelled = split != "test"
    samples = find_samples(spec.layout, root, split, spec.home, labelled=False)
    report = Report(split, images=len(samples))
    frames = FileFrames(samples, LAYOUTS[spec.layout].read_label)
    advance = start(len(samples))
    with ThreadPoolExecutor(allowed_cores()) as pool:
        found = pool.map(
            lambda n: _look(frames, n, samples[n], spec, labelled), range(len(samples))
        )
        for hw, counts, problem in found:
            advance()
            if hw:
                report.sizes[hw] += 1
            if counts is not None:
                report.labels += 1
                report.counts += counts
            report.problems += [problem] if problem else []
    if compare_count:
        report.official = OFFICIAL.get((spec.layout, split), ())
    if report.official and report.images not in report.official:
        report.problems.append(
            f"split {split}: found {report.images} images, officially {report.official[0]}"
        )
    silent = _silent_cause(report.counts, spec)
    report.problems += [f"split {split}: {silent}"] if silent and labelled else []
    return report


def _look(
    frames: FileFrames, number: int, sample: Sample, spec: DatasetSpec, labelled: bool
) -> tuple[tuple[int, int] | None, np.ndarray | None, str]:
    """Return size, label histogram and what is wrong with one sample."""
    try:
        if not labelled:
            return frames.read_bgr(number).shape[:2], None, ""
        if sample.label is None or not sample.label.is_file():
            return None, None, f"{sample.image}: no label; expected {sample.label}"
        label = frames.read(number)[1]
        counts = np.bincount(label.ravel(), minlength=256)
        if (counts[spec.label_lut < 0] > 0).any():
            return label.shape, counts, f"{sample.label}: {outside_table(counts, spec.label_lut)}"
        orientation = exif_orientation(sample.image)
        if orientation != 1:
            return label.shape, counts, (
                f"{sample.image}: has an EXIF rotation (orientation {orientation}), which is not "
                "applied; if its label is upright the two don't match: save the image upright"
            )  # fmt: skip
        return label.shape, counts, ""
    except DataError as error:
        return None, None, str(error)


def _silent_cause(counts: np.ndarray, spec: DatasetSpec) -> str:
    """Say what is likely wrong where every value is in the table, and yet none fits."""
    values = set(np.flatnonzero(counts).tolist())
    if not values:
        return ""
    if not any(spec.label_lut[value] not in (-1, spec.ignore_id) for value in values):
        return "no label has a class that is learned; every pixel would be ignored"
    ids = {row.id for row in spec.train_classes}
    if max(ids) >= spec.num_classes and values <= set(range(spec.num_classes)) and len(values) > 3:
        return (
            f"no label value above {spec.num_classes - 1}: train ids where labelIds are expected?"
        )
    return ""
