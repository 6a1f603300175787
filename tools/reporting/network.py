"""A network as a report shows it: scored on a split, without files of predictions."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tools.inference.predictor import Predictor
from tools.reporting.evaluation import Evaluation
from tools.reporting.kitti import KittiEvaluation
from tools.scoring.network import (
    READERS,
    confidence_reader,
    find_samples_as_pairs,
    label_reader,
)


def evaluate_network(network: Predictor, data_root: Path, split: str) -> Evaluation:
    """Score a network as :func:`tools.scoring.network.score_network` does.

    Label maps of the frames that are shown are computed once more. KITTI's confidences are kept
    between its two scores, at most 140 MB for its 289 frames.
    """
    pairs = find_samples_as_pairs(network, data_root, split)
    images = {pair.name: pair.prediction for pair in pairs}
    if network.dataset.layout == "kitti":
        read = cache(confidence_reader(network))
        return KittiEvaluation(network.dataset, pairs, images, read=read, threads=READERS)
    values, read = "train_id", label_reader(network)
    return Evaluation(network.dataset, pairs, images, (), values, read, READERS)
