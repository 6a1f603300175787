"""Check every file of a data set's split before a long run uses it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.datasets import LAYOUTS, Sample, find_samples, left_out, without_label
from data_iter.errors import DataError
from data_iter.frames import FileFrames
from data_iter.image_files import exif_orientation
from data_iter.labels import outside_table, ranges
from data_iter.listing import list_folders, shortened
from tools.dataset.suspicions import Looks, copies, foreign_palette, look, standing_apart
from train.machine import allowed_cores

# Images by the data sets' own pages; 19998 of Cityscapes' 20000 coarse ones are distributed.
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


class Problem(NamedTuple):
    """A fault, and its file; None: a fault of the split."""

    text: str
    file: Path | None = None


@dataclass
class Report:
    """The findings of one split."""

    split: str
    images: int = 0
    labels: int = 0
    official: tuple[int, ...] = ()
    sizes: Counter = field(default_factory=Counter)  # (height, width) -> images
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # of label values
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # to be looked at, not certainly wrong
    frames: list[Looks] = field(default_factory=list)


def present_splits(spec: DatasetSpec, root: Path) -> list[str]:
    """List the splits of the data set's layout that have images."""
    if spec.layout == "folders":
        return [folder.name for folder in list_folders(root / "images")]
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

    A split ``test`` may be without labels; if it has one, all its images need one.
    ``compare`` checks count and sizes against the official ones.
    ``start`` takes the number of files and returns a function that is called after each one.
    """
    samples = find_samples(spec.layout, root, split, spec.home, labelled=False)
    labelled = split != "test" or (
        (spec.layout, split) not in OFFICIAL  # official test splits have no labels, or empty ones
        and any(sample.label and sample.label.is_file() for sample in samples)
    )
    report = Report(split, images=len(samples))
    frames = FileFrames(samples, LAYOUTS[spec.layout].read_label)
    advance = start(len(samples))
    sound: list[Looks] = []  # frames with nothing wrong
    with ThreadPoolExecutor(allowed_cores()) as pool:
        found = pool.map(
            lambda n: _look(frames, n, samples[n], spec, labelled), range(len(samples))
        )
        for hw, looks, problem in found:
            advance()
            if hw:
                report.sizes[hw] += 1
            if looks is not None:
                report.labels += labelled
                report.counts += looks.counts
                report.frames.append(looks)
                sound += [] if problem else [looks]
            report.problems += [problem] if problem else []
    if compare:
        report.official = OFFICIAL.get((spec.layout, split), ())
        report.problems += [Problem(f"split {split}: {text}") for text in _unofficial(report, spec)]
    silent = _silent_cause(report.counts, spec)
    report.problems += [Problem(f"split {split}: {silent}")] if silent and labelled else []
    _add_left_out(report, *left_out(spec.layout, root, split))
    report.notes += [
        f"{file}: its classes stand apart from the other frames': {cause}; look at it"
        for file, cause in standing_apart(sound, spec)
    ]
    return report


def compare_splits(reports: Sequence[Report], layout: str) -> tuple[list[Problem], list[str]]:
    """Find images that two splits share: equal ones are problems, similar ones are to be looked at.

    VOC's own lists share files: ``train_aug`` contains ``train``.
    """
    problems, notes = [], []
    for first, second in itertools.combinations(reports, 2):
        for one, other, equal in copies(first.frames, second.frames):
            if layout == "voc" and one.file == other.file:
                continue
            if equal:
                text = f"in two splits: the same image as {one.file}"
                problems.append(Problem(text, other.file))
            else:
                notes.append(f"{other.file}: nearly the same image as {one.file}, of another split")
    return problems, notes


def grouped(problems: Sequence[Problem]) -> list[str]:
    """Write one line per cause: the first file with its fault, and the number of other files."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        text = problem.text.replace(str(problem.file), "")
        if problem.file:  # numbers of pixels, and names, differ from file to file
            text = re.sub(r"\d+", "#", text.replace(problem.file.stem, ""))
        groups.setdefault(text, []).append(problem)
    lines = []
    for group in groups.values():
        first = group[0]
        line = first.text
        if first.file and not line.startswith(str(first.file)):
            line = f"{first.file}: {line}"
        if len(group) > 1:
            others = shortened([problem.file.name for problem in group[1:] if problem.file])
            line += f" [{len(group)} files: {others}]"
        lines.append(line)
    return lines


def _add_left_out(report: Report, alone: list[str], others: list[str]) -> None:
    """Name label files without an image, and files that are neither image nor label."""
    if alone:
        text = f"{len(alone)} label files without an image: {shortened(alone)}"
        report.problems.append(Problem(f"split {report.split}: {text}"))
    if others:
        report.notes.append(
            f"split {report.split}: left out, no image or label by its name or place: "
            f"{shortened(others)}"
        )


def _unofficial(report: Report, spec: DatasetSpec) -> list[str]:
    """Report a count or sizes of a split's images that differ from the official ones."""
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
) -> tuple[tuple[int, int] | None, Looks | None, Problem | None]:
    """Return the size, the summary of the frame, and the faults of one sample."""
    none = np.zeros(256, np.int64)
    try:
        if not labelled:
            image = frames.read_bgr(number)
            return image.shape[:2], look(sample.image, image, none), None
        if missing := without_label(sample):
            return None, None, Problem(missing.replace("the image has no label", "no label"),
                                       sample.image)  # fmt: skip
        image, label = frames.read(number)
        counts = np.bincount(label.ravel(), minlength=256)
        looks = look(sample.image, image, counts)
        return label.shape, looks, _wrong(sample, counts, spec)
    except DataError as error:
        of_label = labelled and not str(error).startswith(str(sample.image))
        return None, None, Problem(str(error), sample.label if of_label else sample.image)


def _wrong(sample: Sample, counts: np.ndarray, spec: DatasetSpec) -> Problem | None:
    """List the faults of a sample whose files can be read."""
    if (counts[spec.label_lut < 0] > 0).any():
        return Problem(outside_table(counts, spec.label_lut), sample.label)
    orientation = exif_orientation(sample.image)
    if orientation != 1:
        return Problem(
            f"has an EXIF rotation (orientation {orientation}), which is not applied; if its "
            "label is upright the two don't match: save the image upright",
            sample.image,
        )
    if spec.layout != "kitti" and sample.label.suffix != ".mat":
        palette = foreign_palette(sample.label, counts, spec)
        return Problem(palette, sample.label) if palette else None
    return None


def _silent_cause(counts: np.ndarray, spec: DatasetSpec) -> str:
    """Name the likely fault of labels whose values are all in the table and still don't fit."""
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
    top = max(found - {spec.ignore_id}, default=0)
    if max(row.id for row in spec.train_classes) > classes >= top and len(found) > 3:
        # ``classes`` itself, the value above the last train id, may stand for what is ignored.
        return f"no label value above {top}: train ids where labelIds are expected?"
    lowest = int(np.argmax(lut >= 0))
    if lut[lowest] != spec.ignore_id and lowest not in found and lowest + 1 in found:
        name = spec.train_classes[lut[lowest]].name
        return f"no label has the first class, {name} ({lowest}): classes counted from 1?"
    return ""
