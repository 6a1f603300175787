"""Score one run with the ordinary scorer and the study's own measures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from configs.datasets import DatasetSpec, load_dataset
from data_iter.datasets import Sample, find_samples
from data_iter.image_files import read_label
from tools.scoring import kitti
from tools.scoring.classes import read_pair
from tools.scoring.folder import score_folder
from tools.shared.pairs import find_pairs
from tools.studies.measures import gridding, grouped, size_counts, size_ious
from tools.studies.plan import Row, Study

PERIODS = (2, 4)  # in feature pixels: the plain rates of res4 and res5


def samples_of(study: Study, row: Row, data_root: Path) -> tuple[DatasetSpec, list[Sample]]:
    """List the frames that a study scores."""
    dataset = load_dataset(row.config.data.dataset)
    return dataset, find_samples(dataset.layout, data_root, study.split, dataset.home)


def periods_of(row: Row) -> list[int]:
    """Give the periods of gridding that are looked for, in pixels."""
    return [row.config.network.downsample * period for period in PERIODS]


def link_images(study: Study, row: Row, data_root: Path, folder: Path) -> Path:
    """Fill a folder with links to the images that are scored; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples_of(study, row, data_root)[1]:
        link, image = folder / sample.image.name, sample.image.resolve()
        if link.resolve() != image:  # none yet, or one of another data root
            link.unlink(missing_ok=True)
            link.symlink_to(image)
    return folder


def _road_pixels(path: Path, dataset: DatasetSpec) -> np.ndarray:
    return np.uint8(255) * (read_label(path) == kitti.road_class(dataset))


def score_run(study: Study, row: Row, predictions: Path, data_root: Path) -> dict[str, Any]:
    """Score predictions.

    Returns
    -------
    dict
        ``score`` (0..1) by the study's metric. For KITTI road also ``ap``, but not with the CRF:
        its labels are confidences 0 and 255, which leave one threshold. For others also
        ``pixel_accuracy``, ``ious`` of classes, ``sizes``, ``gridding`` (and that of the
        ``truth``), and ``groups`` of frames: (groups, classes, 3) TP, FP, FN.
    """
    dataset, samples = samples_of(study, row, data_root)
    truth = Path(os.path.commonpath([sample.label.parent for sample in samples if sample.label]))
    names = [sample.name for sample in samples]
    if study.metric == "max_f":
        suffix, read = (".png", _road_pixels) if row.crf else (".npz", kitti.read_confidence)
        pairs = kitti.find_kitti_pairs(truth.parent, predictions, names, (suffix,))
        urban = kitti.score(pairs, dataset, read=read)["categories"][-1]
        return {"score": urban["max_f"]} | ({} if row.crf else {"ap": urban["ap"]})
    scores = score_folder(dataset, truth, predictions, names, "train_id")
    periods, classes, lut = periods_of(row), dataset.num_classes, dataset.label_lut
    sizes, shares, true_shares, frames = 0, [], [], []
    for pair in find_pairs(dataset.layout, truth, predictions, names):
        label, predicted = read_pair(pair)
        label = lut[label]
        shares.append(gridding(predicted, periods).mean())
        true_shares.append(gridding(label, periods).mean())
        counts = size_counts(label, predicted, classes)
        sizes = sizes + counts
        frames.append(counts.sum(axis=0)[:, [0, 2, 1]])
    return {
        "score": scores["mean_iou"],
        "pixel_accuracy": scores["pixel_accuracy"],
        "ious": {entry["name"]: entry["iou"] for entry in scores["classes"]},
        "sizes": size_ious(np.asarray(sizes)),
        "gridding": float(np.mean(shares)),
        "truth_gridding": float(np.mean(true_shares)),
        "groups": grouped(frames),
    }
