"""Score a network on a labelled split: predict, compare, count, without files between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from configs.datasets import DatasetSpec
from data_iter.datasets import LAYOUTS, Sample, find_samples
from data_iter.errors import DataError
from tools.inference.predictor import Predictor
from tools.scoring import classes, kitti
from tools.scoring.folder import label_protocol
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
    pairs = find_samples_as_pairs(network, data_root, split)
    if network.dataset.layout == "kitti":
        return kitti.score(pairs, network.dataset, READERS, confidence_reader(network))
    protocol = label_protocol(network.dataset)
    return protocol.score(pairs, network.dataset, "train_id", READERS, label_reader(network))


def find_samples_as_pairs(network: Predictor, data_root: Path, split: str) -> list[Pair]:
    """Find a split's labels, each paired with the image that the prediction is computed from."""
    dataset = network.dataset
    samples = find_samples(dataset.layout, data_root, split, dataset.home)
    return [_pair(sample, dataset.layout) for sample in samples]


def confidence_reader(network: Predictor) -> kitti.Confidence:
    """Return what computes the confidence map of an image, as :func:`kitti.score` takes it."""

    def confidence(image: Path, dataset: DatasetSpec) -> np.ndarray:
        road = kitti.road_class(dataset)
        return confidence_of(quantise(network.probabilities(image)[road : road + 1])[0])

    return confidence


def label_reader(network: Predictor) -> classes.Read:
    """Return what reads a pair's truth and computes its prediction, (H, W) uint8 each."""
    layout = LAYOUTS[network.dataset.layout]

    def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        truth, prediction = layout.read_label(pair.truth), network.labels(pair.prediction)
        if truth.shape != prediction.shape:
            raise DataError(
                f"{pair.truth}: the label is {truth.shape[1]}x{truth.shape[0]}, its image "
                f"{prediction.shape[1]}x{prediction.shape[0]} (width x height)"
            )
        return truth, prediction

    return read


def _pair(sample: Sample, layout: str) -> Pair:
    """Name a sample as the protocol does; the image takes the place of the prediction."""
    name = road_frame(sample.name) if layout == "kitti" else sample.name
    return Pair(name, sample.label, sample.image)
