"""Find faults that no single file shows: unusual frames, copies between splits, other palettes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from configs.datasets import DatasetSpec
from data_iter.listing import shortened

THUMBNAIL = 16  # pixels a side
NEAR = 1.5  # of 255: mean difference of thumbnails of one picture, compressed again
PLAIN = 4.0  # grey levels: below this standard deviation a thumbnail is too flat to compare
ENOUGH = 8  # fewest frames of a split in which one can be called unusual
APART = 6.0  # number of median deviations from the other frames
FAR = 0.5  # Hellinger distance (0..1) below which class statistics are alike
COLUMNS = 512  # images compared at a time


class Looks(NamedTuple):
    """A frame's summary: digest, thumbnail (256,) float32 grey, label counts (256,) int64."""

    file: Path
    digest: bytes
    thumbnail: np.ndarray
    counts: np.ndarray


def look(file: Path, bgr: np.ndarray, counts: np.ndarray) -> Looks:
    """Summarise a frame, image (H, W, 3) uint8 BGR."""
    size = (THUMBNAIL, THUMBNAIL)
    small = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)
    digest = hashlib.blake2b(np.ascontiguousarray(bgr), digest_size=16).digest()
    return Looks(file, digest, small.astype(np.float32).ravel(), counts)


def copies(first: Sequence[Looks], second: Sequence[Looks]) -> list[tuple[Looks, Looks, bool]]:
    """List images that two splits share, each with whether it is equal in every pixel."""
    equal = {frame.digest: frame for frame in first}
    found = [(equal[f.digest], f, True) for f in second if f.digest in equal]
    told = {frame.file for _, frame, _ in found}
    left = [frame for frame in first if frame.thumbnail.std() > PLAIN]
    right = [f for f in second if f.file not in told and f.thumbnail.std() > PLAIN]
    if not left:
        return found
    stack = np.stack([frame.thumbnail for frame in left])
    for frame in right:
        differences = np.concatenate(
            [
                np.abs(stack[begin : begin + COLUMNS] - frame.thumbnail).mean(axis=1)
                for begin in range(0, len(stack), COLUMNS)
            ]
        )
        nearest = int(differences.argmin())
        if differences[nearest] < NEAR:
            found.append((left[nearest], frame, False))
    return found


def standing_apart(frames: Sequence[Looks], spec: DatasetSpec) -> list[tuple[Path, str]]:
    """List frames whose classes are unlike the other frames' of the split, and a likely cause."""
    labelled = [frame for frame in frames if frame.counts.any()]
    if len(labelled) < ENOUGH:
        return []
    roots = np.sqrt(np.stack([_shares(frame.counts) for frame in labelled]))
    typical = np.median(roots, axis=0)
    typical /= max(np.linalg.norm(typical), 1e-9)

    def distance(shares: np.ndarray) -> np.ndarray:
        """Hellinger distance from the split's typical shares."""
        return np.sqrt(np.clip(1 - shares @ typical, 0, 1))

    away = distance(roots)
    middle = np.median(away)
    limit = max(middle + APART * np.median(np.abs(away - middle)), FAR)
    found = []
    for frame, far, row in zip(labelled, away, roots):
        if far > limit:
            moved = [(float(distance(np.roll(row, -step))), step) for step in (1, -1)]
            nearest, step = min(moved)
            cause = ""
            if nearest < far / 2 and nearest <= limit:
                cause = f"; as if counted from {'one more' if step > 0 else 'one less'}"
            classes = [spec.classes[i].name for i in _largest(frame.counts, spec)]
            found.append((frame.file, f"mostly {', '.join(classes)}{cause}"))
    return found


def foreign_palette(label: Path, counts: np.ndarray, spec: DatasetSpec) -> str:
    """Report a palette file that shows values in the colours of other classes; empty: none.

    The ignored value may have any colour: palettes that end before 255 leave it black.
    """
    with Image.open(label) as image:
        if image.mode != "P":
            return ""
        palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
    trained = spec.label_kind == "train_id"
    rows = spec.train_classes if trained else spec.classes
    learned = [row for row in rows if row.train_id != spec.ignore_id]
    of_value = {row.train_id if trained else row.id: row for row in learned}
    of_color = {row.color: row for row in rows}
    shared = {row.color for row in rows if sum(r.color == row.color for r in rows) > 1}
    wrong = []
    for value in np.flatnonzero(counts[: len(palette)]).tolist():
        color = tuple(palette[value].tolist())
        other = of_color.get(color)
        if value in of_value and other and other != of_value[value] and color not in shared:
            wrong.append(f"{value} ({of_value[value].name}) in that of {other.name}")
    if not wrong:
        return ""
    return (
        "the file's palette shows values in colours of other classes, so its numbers may stand "
        f"in another order than the class table's: {shortened(wrong)}"
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


def _largest(counts: np.ndarray, spec: DatasetSpec) -> list[int]:
    """Positions in the table of the two classes with the most pixels."""
    trained = spec.label_kind == "train_id"
    sizes = [int(counts[row.train_id if trained else row.id]) for row in spec.classes]
    return [i for i in np.argsort(sizes)[::-1][:2].tolist() if sizes[i]]
