r"""Search the CRF's parameters on a validation set (paper, section 4.1.2: a grid search).

  python tools/predict.py VAL_IMAGES --model runs/duc_hdc --save-probabilities --out results
  python tools/crf_search.py --images VAL_IMAGES --probabilities results --dataset cityscapes \
      --ground-truth gtFine/val --out search --grid sigma_alpha=10,15,20 w1=3,5

Every combination of the --grid values is scored by mIoU on all images; keys that are not named
keep the value of --config. OUT gets points.csv with all points, best.cfg with the best one as lines
for a configuration, and search.jsonl, from which the same command continues after an interruption.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before anything loads

import argparse
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from configs.datasets import DatasetSpec, load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Crf
from data_iter.image_files import read_label
from data_iter.labels import to_train_ids
from tools.inference.dense_crf import Frame, affordable_jobs, find_frames, read_frame, refine
from tools.shared.options import at_least_one
from tools.shared.pairs import find_pairs, read_frames
from tools.shared.parallel import in_processes
from train.atomic import atomic_write, check_room, digest
from train.errors import RunError
from train.machine import PROJECT
from train.metrics import confusion_matrix, iou, mean_score, pixel_accuracy

BASE = PROJECT / "configs" / "base.cfg"
GRID = ("sigma_alpha=10,15,20", "sigma_beta=2,3,4", "w1=2,3,4")


class Task(NamedTuple):
    """One frame at one point of the grid; without a point (None), the plain prediction."""

    frame: Frame
    truth: Path
    point: Crf | None


def grid_points(config: Path, grid: Sequence[str]) -> list[Crf]:
    """List the points of ``key=value,value ...`` around the [crf] section of ``config``."""
    axes = []
    for axis in grid:
        key, equals, values = axis.partition("=")
        if not equals or not values:
            raise ConfigError(f"--grid {axis}: expected KEY=VALUE,VALUE,...")
        axes.append([f"crf.{key.removeprefix('crf.')}={value}" for value in values.split(",")])
    points = [load_config(config, overrides).crf for overrides in itertools.product(*axes)]
    return list(dict.fromkeys(points))


def score_task(task: Task, dataset: DatasetSpec) -> np.ndarray:
    """Count the (L, L) confusion matrix of a frame at a point."""
    image, probabilities = read_frame(task.frame)
    if task.point is None:
        labels = probabilities.argmax(axis=0).astype(np.uint8)
    else:
        labels = refine(image, probabilities, task.point)
    truth = to_train_ids(read_label(task.truth), dataset.label_lut, task.truth)
    return confusion_matrix(truth, labels, dataset.num_classes, dataset.ignore_id)


class Journal:
    """The finished tasks, one line of JSON each; the first line identifies the inputs."""

    def __init__(self, path: Path, tasks: Sequence[Task], dataset: DatasetSpec):
        self.path = path
        self.done: dict[str, np.ndarray] = {}
        frames = sorted({(task.frame, task.truth) for task in tasks})
        files = [_identify(*frame) for frame in frames]
        inputs = hashlib.sha256(repr((files, dataset)).encode()).hexdigest()
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps({"inputs": inputs}) + "\n", encoding="utf-8")
            return
        try:
            text = path.read_text(encoding="utf-8")
            first, *lines = map(json.loads, text.rpartition("\n")[0].splitlines())
            begun_with = first["inputs"]
            shape = (dataset.num_classes, dataset.num_classes)
            self.done = {
                line["task"]: np.array(line["confusion"], np.int64).reshape(shape) for line in lines
            }
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise RunError(
                f"{path}: damaged ({error}): remove it, or choose another --out"
            ) from None
        if begun_with != inputs:
            raise RunError(f"{path}: the search was begun with other inputs; choose another --out")
        if not text.endswith("\n"):  # the last line was cut by an interruption or a full disk
            os.truncate(path, len(text[: text.rfind("\n") + 1].encode()))

    @staticmethod
    def key(task: Task) -> str:
        """Name a task."""
        return f"{task.frame.name} {task.point}"

    def add(self, task: Task, confusion: np.ndarray) -> None:
        """Note a result."""
        self.done[self.key(task)] = confusion
        line = json.dumps({"task": self.key(task), "confusion": confusion.tolist()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _identify(frame: Frame, truth: Path) -> tuple[str | int, ...]:
    """Identify a frame's files: a map, which is large, by size and time, the others by content."""
    stat = frame.probabilities.stat()
    return frame.name, stat.st_size, stat.st_mtime_ns, digest(frame.image), digest(truth)


def rank(tasks: Sequence[Task], journal: Journal) -> list[dict[str, Any]]:
    """Score every point over all frames, the best first; the plain prediction has no parameters."""
    confusions: dict[Crf | None, Any] = {}
    for task in tasks:
        confusions[task.point] = confusions.get(task.point, 0) + journal.done[journal.key(task)]
    rows = [
        {
            "point": point,
            "mean_iou": mean_score(iou(confusion)),
            "pixel_accuracy": pixel_accuracy(confusion),
        }
        for point, confusion in confusions.items()
    ]
    return sorted(rows, key=lambda row: -row["mean_iou"])


def write_results(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``points.csv`` and ``best.cfg``."""
    names = [field.name for field in dataclasses.fields(Crf)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*names, "mean_iou", "pixel_accuracy"])
    for row in rows:
        values = [getattr(row["point"], name, "") for name in names]
        writer.writerow([*values, row["mean_iou"], row["pixel_accuracy"]])
    best = next(row for row in rows if row["point"])
    lines = [f"{name} = {getattr(best['point'], name)}" for name in names]
    for name, text in (
        ("points.csv", table.getvalue()),
        ("best.cfg", "\n".join(["[crf]", *lines, ""])),
    ):
        with atomic_write(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def print_results(rows: Sequence[dict[str, Any]], shown: int = 20) -> None:
    """Print the best points, and the plain prediction for comparison."""
    names = [field.name for field in dataclasses.fields(Crf)]
    table = Table(*names, "mIoU %", "accuracy %", title=f"the best of {len(rows) - 1} points")
    for row in [*rows[:shown], *(row for row in rows[shown:] if not row["point"])]:
        values = [str(getattr(row["point"], name, "-")) for name in names]
        table.add_row(*values, f"{100 * row['mean_iou']:.2f}", f"{100 * row['pixel_accuracy']:.2f}")
    Console(markup=False).print(table)


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, type=Path, help="folder with the images")
    parser.add_argument("--probabilities", required=True, type=Path, help="folder with NAME.npz")
    parser.add_argument("--ground-truth", required=True, type=Path, help="folder of label files")
    parser.add_argument("--dataset", required=True, help="name or .yaml file of the class table")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--config", type=Path, default=BASE, help=".cfg with a [crf] section")
    parser.add_argument(
        "--grid", nargs="+", default=GRID, metavar="KEY=V,V", help=f"default: {' '.join(GRID)}"
    )
    parser.add_argument("--names", type=Path, help="file with the frames to score, one per line")
    parser.add_argument("--jobs", type=int, help="images at a time")
    return parser


@command
def main(argv=None) -> int:
    args = parser().parse_args(argv)
    at_least_one("--jobs", args.jobs)

    dataset = load_dataset(args.dataset)
    points = grid_points(args.config, args.grid)
    names = read_frames(args.names, args.ground_truth)
    pairs = find_pairs(dataset.layout, args.ground_truth, args.probabilities, names, suffix=".npz")
    truths = {pair.prediction: pair.truth for pair in pairs}
    frames = find_frames(args.images, args.probabilities, dataset, args.out)
    tasks = [
        Task(frame, truths[frame.probabilities], point)
        for frame in frames
        if frame.probabilities in truths
        for point in (None, *points)
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(args.out / "search.jsonl", tasks, dataset)
    todo = [task for task in tasks if journal.key(task) not in journal.done]
    # A line of the journal has a digit and two signs a number, at least.
    least = len(todo) * 3 * dataset.num_classes**2
    check_room(args.out, least, f"{len(todo)} results take at least")
    jobs = args.jobs or affordable_jobs([task.frame.image for task in tasks], dataset.num_classes)
    for task, confusion in in_processes(
        partial(score_task, dataset=dataset), todo, "searching", jobs
    ):
        journal.add(task, confusion)
    rows = rank(tasks, journal)
    write_results(args.out, rows)
    print_results(rows)
    print((args.out / "best.cfg").read_text(encoding="utf-8"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
