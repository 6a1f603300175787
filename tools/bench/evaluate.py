"""How fast scoring is, compared with the official cityscapesScripts on a generated folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs.datasets import load_dataset
from tools.bench.measuring import in_turn, row
from tools.scoring.folder import score_folder
from train.machine import allowed_cores

HW = (1024, 2048)
FRAMES = 8


def rows(*, runs: int = 5, hw: tuple[int, int] = HW, frames: int = FRAMES) -> list[dict[str, Any]]:
    """Score a folder with both in turn, in images per second.

    The ratio is this project's speed over that of cityscapesScripts.
    """
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as theirs  # noqa: N813

    theirs.args.quiet, theirs.args.JSONOutput = True, False
    with tempfile.TemporaryDirectory() as folder:
        truths, predictions = zip(*(make_frame(Path(folder), n, hw) for n in range(frames)))
        dataset = load_dataset("cityscapes")
        lists = (list(map(str, predictions)), list(map(str, truths)))
        seconds = in_turn(
            {
                "ours": partial(
                    _seconds, score_folder, dataset, truths[0].parent, predictions[0].parent
                ),
                "theirs": partial(_seconds, theirs.evaluateImgLists, *lists, theirs.args),
            },
            runs,
        )
    rates = {who: [frames / each for each in times] for who, times in seconds.items()}
    size = f"{hw[0]}x{hw[1]}"
    official = f"evaluate_cityscapesscripts_{size}_1thread"
    ours = f"evaluate_cityscapes_{size}_{allowed_cores()}threads"
    return [
        row(ours, "images/s", rates["ours"], official, rates["theirs"]),
        row(official, "images/s", rates["theirs"]),
    ]


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def make_frame(folder: Path, number: int, hw: tuple[int, int]) -> tuple[Path, Path]:
    """Write labels, instances and a prediction of ragged regions; returns truth and prediction."""
    random = np.random.default_rng(number)
    ids = [0, 1, 4, 7, 7, 7, 8, 11, 11, 17, 20, 21, 21, 23, 24, 26, 26]
    seeds = random.choice(ids, (16, 32)).astype(np.uint8)
    regions = cv2.resize(seeds, hw[::-1], interpolation=cv2.INTER_NEAREST)
    rows, columns = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    waves = [
        cv2.GaussianBlur(random.normal(0, 400, hw).astype(np.float32), (0, 0), 8) for _ in "xy"
    ]

    def bent(share: float) -> np.ndarray:
        places = (columns + share * waves[0], rows + share * waves[1])
        return cv2.remap(regions, *places, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    truth, prediction = bent(1), np.maximum(bent(0.8), 7)
    _, parts = cv2.connectedComponents((truth >= 24).astype(np.uint8))
    instances = np.where(truth >= 24, truth * 1000 + parts % 1000, truth).astype(np.uint16)
    name = f"city_{number:06d}_000019"
    files = {
        f"truth/{name}_gtFine_labelIds.png": truth,
        f"truth/{name}_gtFine_instanceIds.png": instances,
        f"prediction/{name}.png": prediction,
    }
    for path, pixels in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / path), pixels)
    paths = [folder / path for path in files]
    return paths[0], paths[2]
