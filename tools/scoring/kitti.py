"""The KITTI road scores, in bird's-eye view: MaxF, AP, PRE, REC, FPR, FNR per category and URBAN.

A prediction is an 8-bit confidence for road at each pixel, p = value / 255. The protocol is that of
the development kit (evaluateRoad.py): 256 thresholds k / 255, road where p >= k / 255, pixels
summed over all frames of a category; PRE, REC, FPR and FNR are those at the threshold with the
largest F1 (MaxF), AP the mean over recalls 0, 0.1 ... 1 of the best precision at that recall or
more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.datasets import DatasetSpec
from configs.errors import ConfigError
from data_iter.errors import DataError
from data_iter.image_files import read_image, read_label
from tools.scoring.kitti_bev import BEV_HW, read_calibration, to_bev
from tools.shared.pairs import Names, Pair, files, index, match
from tools.shared.parallel import in_threads
from tools.shared.probabilities import PROBABILITY_SCALE, read_probabilities
from train.metrics import joint_histogram, or_none

CATEGORIES = ("um_lane", "um_road", "umm_road", "uu_road")
URBAN = CATEGORIES[1:]  # the overall score: all road frames together
EPSILON = 1e-10  # the development kit's guard against 0 / 0


def find_kitti_pairs(
    ground_truth: Path,
    predictions: Path,
    names: Names = None,
    suffixes: Sequence[str] = (".png", ".npz"),
) -> list[Pair]:
    """Pair ``gt_image_2/um_road_000000.png`` with the prediction of that name, or ``um_000000``.

    Lanes (``um_lane_*``) are scored if any lane is predicted. ``ground_truth`` is ``training`` or
    its ``gt_image_2``. Predictions are ``.png`` confidences or ``.npz`` probability maps; if there
    are both, the maps are used.
    """
    folder = ground_truth / "gt_image_2"
    truths = index(
        files(folder if folder.is_dir() else ground_truth, "u*_*_*.png"), lambda file: file.stem
    )
    if not truths:
        raise DataError(f"{ground_truth}: no label files (gt_image_2/*_road_*.png) in it")
    found = road_maps(predictions, suffixes)
    if not any(name.startswith("um_lane_") for name in found):
        truths = {name: file for name, file in truths.items() if not name.startswith("um_lane_")}
    return match(truths, found, predictions, names and [road_frame(name) for name in names])


def read_confidence(path: Path, dataset: DatasetSpec) -> np.ndarray:
    """Read a confidence map (H, W) uint8 from a PNG, or from a probability map's class ``road``.

    Raises ``DataError`` if the map has another number of classes than ``dataset``.
    """
    if path.suffix != ".npz":
        return read_label(path)
    return confidence_of(read_probabilities(path, dataset)[road_class(dataset)])


def confidence_of(stored: np.ndarray) -> np.ndarray:
    """Turn (H, W) uint16 probabilities, as they are stored, into confidences 0..255, uint8."""
    return np.rint(stored * (255 / PROBABILITY_SCALE)).astype(np.uint8)


Confidence = Callable[[Path, DatasetSpec], np.ndarray]


def score(
    pairs: Sequence[Pair],
    dataset: DatasetSpec,
    threads: int | None = None,
    read: Confidence = read_confidence,
) -> dict[str, Any]:
    """Score confidence maps.

    Parameters
    ----------
    pairs : sequence of Pair
        From :func:`find_kitti_pairs`. Pictures of 800 rows x 400 columns are bird's-eye views;
        others are perspective, as large as the label file, and projected with
        ``calib/um_000000.txt`` in the folder beside that of the label files.
    dataset : DatasetSpec
        Gives the name, and the classes of probability maps.
    read : callable
        Gives the confidence map (H, W) uint8 of ``pair.prediction``; of a file by default.

    Returns
    -------
    dict
        Ready for JSON: ``categories``, rows with ``name``, ``frames``, ``max_f``, ``ap``, ``pre``,
        ``rec``, ``fpr``, ``fnr`` (0..1, None where undefined) and ``threshold`` (0..255).
    """
    road_class(dataset)  # the class table must have one
    counts = in_threads(lambda pair: count_frame(pair, dataset, read), pairs, "Scoring", threads)
    total = sum(counts)
    if total.sum() and not total[:, 2:].any() and total[:, 1].any():
        raise DataError(
            f"{pairs[0].prediction.parent}: every predicted value is 0 or 1 (train ids?); "
            "expected confidences for road, 0..255"
        )
    rows = []
    for name, members in [*((name, (name,)) for name in CATEGORIES), ("URBAN", URBAN)]:
        chosen = [count for pair, count in zip(pairs, counts) if pair.name.startswith(members)]
        if chosen:
            rows.append({"name": name, "frames": len(chosen), **category_scores(sum(chosen))})
    return {"dataset": dataset.name, "images": len(pairs), "categories": rows}


def count_frame(pair: Pair, dataset: DatasetSpec, read: Confidence = read_confidence) -> np.ndarray:
    """Count a frame's valid bird's-eye cells: (2, 256), not road and road, per confidence."""
    truth, prediction = read_image(pair.truth), read(pair.prediction, dataset)
    if prediction.shape not in (truth.shape[:2], BEV_HW):
        raise DataError(
            f"{pair.prediction}: the prediction is {prediction.shape[1]}x{prediction.shape[0]}, "
            f"expected {BEV_HW[1]}x{BEV_HW[0]} (bird's-eye view) or, as {pair.truth.name}, "
            f"{truth.shape[1]}x{truth.shape[0]} (width x height)"
        )
    pictures = [truth, prediction]
    if any(picture.shape[:2] != BEV_HW for picture in pictures):
        category, _, number = pair.name.split("_")
        file = pair.truth.parent.parent / "calib" / f"{category}_{number}.txt"
        calibration = read_calibration(file)
        truth, prediction = (
            picture if picture.shape[:2] == BEV_HW else to_bev(picture, calibration)
            for picture in pictures
        )
    valid, is_road = truth[..., 0] > 0, truth[..., 2] > 0  # the development kit's getGroundTruth
    return joint_histogram(is_road[valid].astype(np.uint8), prediction[valid])[
        :2
    ].copy()  # not a view: 0.5 MB a frame


def category_scores(counts: np.ndarray) -> dict[str, Any]:
    """Score the (2, 256) counts of :func:`count_frame`, summed over a category."""
    at_least = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # cells of confidence k or more
    wrong, hits = at_least.astype(np.float64)
    negatives, positives = wrong[0], hits[0]
    if not positives:
        return dict.fromkeys(("max_f", "ap", "pre", "rec", "fpr", "fnr", "threshold"))
    recall = hits / positives
    precision = hits / (hits + wrong + EPSILON)
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    best = int(f1.argmax())
    ap = sum(precision[recall >= level].max() for level in np.arange(0, 1.1, 0.1)) / 11
    return {
        "max_f": float(f1[best]),
        "ap": float(ap),
        "pre": float(hits[best] / (hits[best] + wrong[best])),
        "rec": float(recall[best]),
        "fpr": or_none(float(wrong[best] / negatives) if negatives else float("nan")),
        "fnr": float((positives - hits[best]) / positives),
        "threshold": best,
    }


def road_maps(folder: Path, suffixes: Sequence[str] = (".png", ".npz")) -> dict[str, Path]:
    """Find each frame's map; of several, the one with the last of ``suffixes``."""
    return {
        name: file
        for suffix in suffixes
        for name, file in index(files(folder, f"*{suffix}"), lambda f: road_frame(f.stem)).items()
    }


def road_frame(name: str) -> str:
    """Turn an image's name, ``um_000000``, into that of its road frame; other names stay."""
    parts = name.split("_")
    return "_".join([parts[0], "road", parts[1]]) if len(parts) == 2 else name


def road_class(dataset: DatasetSpec) -> int:
    """Train id of ``road``."""
    names = [row.name for row in dataset.train_classes]
    if "road" not in names:
        raise ConfigError(f"data set {dataset.name}: has no class 'road', which this scores")
    return names.index("road")
