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
from data_iter.image_files import exif_orientation
from data_iter.frames import FileFrames
from data_iter.listing import list_files
from data_iter.labels import outside_table, ranges
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
    ("voc", "coco"): (),  # as many as prepare_data.py coco drew
}
# Height and width of every image; the other data sets' differ from image to image.
OFFICIAL_HW = {"cityscapes": (1024, 2048)}


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
        return sorted(path.name for path in list_files(root / "images", "*") if path.is_dir())
    splits = [split for layout, split in OFFICIAL if layout == spec.layout]
    return [split for split in splits if LAYOUTS[spec.layout].find(root, split)]


def check_split(
    spec: DatasetSpec,
    root: Path,
    split: str,
    compare: bool = True,
    start: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Report:
    """Read every image and label of ``split``; nothing is changed.

    ``compare`` checks count and sizes against the official ones.
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
    if compare:
        report.official = OFFICIAL.get((spec.layout, split), ())
        report.problems += [f"split {split}: {text}" for text in _unofficial(report, spec)]
    silent = _silent_cause(report.counts, spec)
    report.problems += [f"split {split}: {silent}"] if silent and labelled else []
    return report


def _unofficial(report: Report, spec: DatasetSpec) -> list[str]:
    """Say where the count and the sizes of a split's images are not the official ones."""
    found = []
    if report.official and report.images not in report.official:
        found.append(f"found {report.images} images, officially {report.official[0]}")
    hw = OFFICIAL_HW.get(spec.layout)
    others = sum(report.sizes.values()) - report.sizes[hw] if hw else 0
    if hw and others:
        found.append(
            f"{others} images are not {hw[0]}x{hw[1]} (height x width); a copy made smaller? "
            "The paper's patches are cut from the official size"
        )
    return found


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
    """Say what is likely wrong where every value is in the table, and yet they don't fit."""
    lut, classes = spec.label_lut, spec.num_classes
    values = np.flatnonzero(counts)
    found = set(values.tolist())
    if not found:
        return ""
    learned = sorted({int(lut[value]) for value in values} - {-1, spec.ignore_id})
    if not learned:
        return "no label has a class that is learned; every pixel would be ignored"
    if classes > 2 and len(found) > 1 and found <= {0, 1, 255}:
        return f"no label value but {ranges(values)}: a black-and-white mask instead of classes?"
    if classes > 1 and len(learned) == 1:
        return f"no label has a class but {spec.train_classes[learned[0]].name}; is it a mask?"
    if max(row.id for row in spec.train_classes) > classes >= max(found) and len(found) > 3:
        # ``classes`` itself, the value above the last train id, may stand for what is ignored.
        return f"no label value above {max(found)}: train ids where labelIds are expected?"
    lowest = int(np.argmax(lut >= 0))
    if lut[lowest] != spec.ignore_id and lowest not in found and lowest + 1 in found:
        name = spec.train_classes[lut[lowest]].name
        return f"no label has the first class, {name} ({lowest}): classes counted from 1?"
    return ""
