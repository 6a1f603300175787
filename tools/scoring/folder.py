"""Score a folder of predictions by the protocol of its data set."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from configs.datasets import DatasetSpec
from tools.scoring import cityscapes, classes, kitti
from tools.shared.pairs import Names, find_pairs


def label_protocol(dataset: DatasetSpec) -> ModuleType:
    """Return the module whose ``score`` takes the label maps of a class table."""
    return cityscapes if dataset.layout == "cityscapes" else classes


def score_folder(
    dataset: DatasetSpec,
    ground_truth: Path,
    predictions: Path,
    names: Names = None,
    values: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Score a folder of predictions.

    Parameters
    ----------
    dataset : DatasetSpec
        The class table; its layout decides how files are found and which protocol applies.
    ground_truth, predictions : Path
        Folders: see :func:`tools.shared.pairs.find_pairs` and
        :func:`tools.scoring.kitti.find_kitti_pairs`.
    names : sequence of str, or mapping of str to Path, optional
        Score these frames only.
    values : str, optional
        ``label_id`` or ``train_id``: what predictions hold, if their values fit both.
    threads : int, optional
        By default all that the process may use.

    Returns
    -------
    dict
        The result of the protocol's module: :mod:`tools.scoring.classes` (which describes the
        common part), :mod:`tools.scoring.cityscapes` or :mod:`tools.scoring.kitti`.

    Raises
    ------
    DataError
        A file is missing, superfluous or wrong.
    """
    if dataset.layout == "kitti":
        pairs = kitti.find_kitti_pairs(ground_truth, predictions, names)
        return kitti.score(pairs, dataset, threads)
    pairs = find_pairs(dataset.layout, ground_truth, predictions, names)
    return label_protocol(dataset).score(pairs, dataset, values, threads)
