"""One self-contained HTML page of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tools.reporting.evaluation import Evaluation
from tools.scoring.classes import MEASURES
from tools.shared.parallel import in_threads
from tools.shared.pictures import colours, data_uri, error_map, shrink
from train.atomic import atomic_write

TEMPLATE = Path(__file__).with_name("page.html.j2")
WIDTH = 640  # pixels of a picture at most
SHOWN = 12  # frames of the best, and of the worst


def choose(frames: list[dict[str, Any]], count: int) -> list[int]:
    """Choose frames by number, in order: the worst and best ``count`` and each class's worst."""
    scored = [number for number, frame in enumerate(frames) if frame["mean_iou"] is not None]
    ranked = sorted(scored, key=lambda number: frames[number]["mean_iou"])
    chosen = {*ranked[:count], *ranked[max(0, len(ranked) - count) :]}
    for train_id in range(len(frames[0]["iou"])):
        with_class = [number for number in scored if frames[number]["iou"][train_id] is not None]
        if with_class:
            chosen.add(min(with_class, key=lambda number: frames[number]["iou"][train_id]))
    return sorted(chosen)


def frame_context(evaluation: Evaluation, number: int) -> dict[str, Any]:
    """Collect a frame's scores, and its pictures as ``data:`` for ``<img>``."""
    layers = evaluation.layers(number)
    dataset = evaluation.dataset
    image = shrink(layers.image, WIDTH, photo=True)
    truth, prediction = (shrink(m, WIDTH, photo=False) for m in (layers.truth, layers.prediction))
    errors = error_map(image, truth, prediction, dataset.ignore_id)
    pictures = [
        ("input", data_uri(image, photo=True)),
        ("ground truth", data_uri(colours(truth, dataset), photo=False)),
        ("prediction", data_uri(colours(prediction, dataset), photo=False)),
        ("errors", data_uri(errors, photo=True)),
    ]
    scores = dict(evaluation.scores["frames"][number])
    if layers.refined is not None:
        refined = colours(shrink(layers.refined, WIDTH, photo=False), dataset)
        pictures.append(("with CRF", data_uri(refined, photo=False)))
        scores["refined_iou"] = evaluation.refined["frames"][number]["mean_iou"]
    return scores | {"pictures": pictures}


def class_context(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Collect each class's scores, with and without CRF, and its colour."""
    refined = evaluation.refined["classes"] if evaluation.refined else None
    return [
        row
        | {
            "color": "rgb({}, {}, {})".format(*spec.color),
            "refined_iou": refined[train_id]["iou"] if refined else None,
        }
        for train_id, (row, spec) in enumerate(
            zip(evaluation.scores["classes"], evaluation.dataset.train_classes)
        )
    ]


def confusion_shares(scores: dict[str, Any]) -> list[list[float]]:
    """Return each true class's share, 0..1, of every predicted class, and of other predictions."""
    counts = np.array(scores["confusion"], np.float64)
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).tolist()


def render(evaluation: Evaluation, title: str, count: int) -> str:
    """Build the page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    numbers = choose(evaluation.scores["frames"], count)
    frames = in_threads(lambda number: frame_context(evaluation, number), numbers, "Painting")
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        dataset=evaluation.dataset.name,
        images=evaluation.scores["images"],
        rows=evaluation.rows(),
        classes=class_context(evaluation),
        measures=MEASURES,
        confusion=confusion_shares(evaluation.scores),
        frames=frames,
        has_crf=evaluation.refined is not None,
    )


def write_page(
    out: Path, evaluation: Evaluation, title: str | None = None, count: int = SHOWN
) -> None:
    """Write the page of an evaluation, and say so.

    Parameters
    ----------
    out : Path
        The page, ``.html``.
    evaluation : Evaluation
        What it shows.
    title : str, optional
        The data set's name by default.
    count : int
        How many of the best frames are shown, and of the worst; besides, each class's worst.
    """
    page = render(evaluation, title or f"{evaluation.dataset.name}: predictions", count)
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{out}: {evaluation.scores['images']} images, {len(page) / 1e6:.1f} MB")
