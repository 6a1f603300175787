"""The figure of a study: each row's seeds as points, mean and standard deviation as a bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a screen

import matplotlib.pyplot as plt

from tools.studies.plan import Study
from train.atomic import atomic_write


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
    axes.set_yticks(range(len(entries)), [entry["title"] for entry in entries])
    axes.invert_yaxis()
    axes.set_xlabel({"mean_iou": "mIoU", "max_f": "MaxF"}[study.metric] + ", %: seeds, mean ± sd")
    axes.set_title(study.name)
    axes.grid(axis="x", alpha=0.3)
    with atomic_write(out) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
