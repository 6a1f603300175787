"""The figures of a study: its table, and a patch of the rows' predictions (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")  # draws without a screen

import matplotlib.pyplot as plt

from configs.datasets import load_dataset
from data_iter.image_files import read_label
from tools.shared.parallel import in_threads
from tools.shared.pictures import colours
from tools.studies.measures import gridding
from tools.studies.plan import METRICS, Row, Study
from tools.studies.running import prediction_folder
from tools.studies.scoring import periods_of
from train.atomic import atomic_write

Patch = tuple[slice, slice]  # rows, columns
ACROSS = 6  # panels of a figure side by side


def draw(study: Study, entries: list[dict[str, Any]], out: Path) -> None:
    """Draw the table of a study as a PNG; rows without a finished run stay empty."""
    figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(entries)), layout="constrained")
    for place, entry in enumerate(entries):
        scores = [100 * score for score in entry["scores"].values()]
        axes.plot(scores, [place] * len(scores), "o", color="tab:blue", alpha=0.5, markersize=5)
        if scores:
            axes.errorbar(
                100 * entry["mean"], place, xerr=100 * (entry["sd"] or 0), fmt="|", color="black",
                capsize=4, markersize=14,
            )  # fmt: skip
    titles = ["\n".join(wrap(entry["title"], 36)) for entry in entries]
    axes.set_yticks(range(len(entries)), titles)
    axes.set_ylim(len(entries) - 0.5, -0.5)  # the first row at the top
    axes.set_xlabel(METRICS[study.metric] + ", %: seeds, mean ± sd")
    axes.set_title(study.name)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, out)


def draw_patch(study: Study, out: Path, picture: Path) -> None:
    """Draw one patch as the network of each row labels it, as Figure 5 does.

    The patch is a square of 3/8 of the frame's height: the one in which a row has most gridding.
    Rows with predictions of the study's first seed in ``out`` are drawn; without any, nothing is.
    """
    folders = [(row, prediction_folder(out, study, row, study.seeds[0])) for row in study.rows]
    shown = [(row, folder) for row, folder in folders if any(folder.glob("*.png"))]
    found = most_gridding(shown)
    if found is None:
        return
    frame, patch = found
    columns = min(len(shown), ACROSS)
    lines = -(-len(shown) // columns)
    titles = ["\n".join(wrap(row.title, 22)) for row, _ in shown]
    height = 2.2 + 0.15 * max(title.count("\n") + 1 for title in titles)  # inches
    figure, axes = plt.subplots(
        lines, columns, figsize=(2 * columns, 0.3 + lines * height), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, title, (row, folder) in zip(axes.flat, titles, shown):
        labels = read_label(folder / frame)
        share = 100 * gridding(labels, periods_of(row))[patch].mean()
        dataset = load_dataset(row.config.data.dataset)
        panel.imshow(colours(labels[patch], dataset), interpolation="nearest")
        panel.set_title(f"{title}\ngridding {share:.1f} %", fontsize=8)
    figure.suptitle(f"{study.name}, {Path(frame).stem}", fontsize=9)
    _save(figure, picture)


def most_gridding(shown: Sequence[tuple[Row, Path]]) -> tuple[str, Patch] | None:
    """Find the frame and the patch with most gridding, over rows and their predictions.

    Only frames that every row has predicted are looked at; None if there is none.
    """
    names = [{file.name for file in folder.glob("*.png")} for _, folder in shown]
    frames = sorted(set.intersection(*names)) if names else []
    predictions = [(row, folder / frame) for row, folder in shown for frame in frames]
    found = in_threads(lambda prediction: _densest(*prediction), predictions, "gridding")
    if not found:
        return None
    best = max(range(len(found)), key=lambda index: found[index][0])  # the first of equal ones
    return predictions[best][1].name, found[best][1]


def _densest(row: Row, file: Path) -> tuple[float, Patch]:
    """Return the number of gridding pixels in the patch of a prediction that has most of them."""
    marks = gridding(read_label(file), periods_of(row)).astype(np.float32)
    height, width = marks.shape
    side = max(1, min(height * 3 // 8, width))
    sums = cv2.boxFilter(marks, -1, (side, side), anchor=(0, 0), normalize=False)
    sums = sums[: height - side + 1, : width - side + 1]
    top, left = map(int, np.unravel_index(sums.argmax(), sums.shape))
    return float(sums.max()), (slice(top, top + side), slice(left, left + side))


def _save(figure: plt.Figure, out: Path) -> None:
    with atomic_write(out) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
