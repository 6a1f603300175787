"""Score a network on a labelled split: predict, compare, count, without files between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_iter.datasets import LAYOUTS, Sample, find_samples
from data_iter.errors import DataError
from tools.inference.predictor import Predictor
from tools.scoring import cityscapes, classes, kitti
from tools.scoring.kitti import confidence_of, road_frame
from tools.shared.pairs import Pair
from tools.shared.probabilities import quantise

READERS = 2  # threads: one reads and counts while the other one waits for the network


def score_network(network: Predictor, data_root: Path, split: str) -> dict[str, Any]:
    """Score a network on a split by its data set's protocol.

    The scores equal those of ``predict.py`` followed by ``evaluate.py``.

    Parameters
    ----------
    network : Predictor
        What predicts.
    data_root : Path
        The data set's folder.
    split : str
        A split with labels.

    Returns
    -------
    dict
        As :func:`tools.scoring.folder.score_folder` returns it.

    Raises
    ------
    DataError
        An image or its label is missing or wrong.
    """
    dataset = network.dataset
    samples = find_samples(dataset.layout, data_root, split, dataset.home)
    pairs = [_pair(sample, dataset.layout) for sample in samples]
    if dataset.layout == "kitti":

        def confidence(image: Path, road: int) -> np.ndarray:
            return confidence_of(quantise(network.probabilities(image)[road : road + 1])[0])

        return kitti.score(pairs, dataset, READERS, confidence)

    def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        truth = LAYOUTS[dataset.layout].read_label(pair.truth)
        prediction = network.labels(pair.prediction)
        if truth.shape != prediction.shape:
            raise DataError(
                f"{pair.truth}: the label is {truth.shape[1]}x{truth.shape[0]}, its image "
                f"{prediction.shape[1]}x{prediction.shape[0]} (width x height)"
            )
        return truth, prediction

    protocol = cityscapes if dataset.layout == "cityscapes" else classes
    return protocol.score(pairs, dataset, "train_id", READERS, read)


def _pair(sample: Sample, layout: str) -> Pair:
    """Name a sample as the protocol does; the image takes the place of the prediction."""
    name = road_frame(sample.name) if layout == "kitti" else sample.name
    return Pair(name, sample.label, sample.image)
