"""The CRF's time and memory, compared with a plain call of pydensecrf on the same noisy frame.

10 of 19 classes are present. Each single frame is refined in its own process, so that the peak
memory is that of one refinement. A folder is then refined in parallel.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs.schema import Crf
from tools.bench.measuring import in_own_process, in_turn, row
from tools.inference.dense_crf import Frame, affordable_jobs, read_frame, refine, refine_frame
from tools.shared.parallel import in_processes
from tools.shared.probabilities import PROBABILITY_SCALE, write_probabilities
from train.machine import peak_memory

SIZES = ((512, 1024),)  # half of Cityscapes, for its whole frames take seven minutes
CLASSES, PRESENT = 19, 10


def rows(*, runs: int = 5, sizes: Sequence[tuple[int, int]] = SIZES) -> Iterator[dict[str, Any]]:
    """Time the plain call, this project's call and parallel work in turn.

    Ratios compare with the plain call.
    """
    for hw in sizes:
        yield from _size(hw, runs)


def _size(hw: tuple[int, int], runs: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = [make_frame(folder, number, hw) for number in range(2)]
        jobs = affordable_jobs([frame.image for frame in frames], CLASSES)
        results = in_turn(
            {
                "plain": partial(_alone, "plain", frames[0], folder),
                "ours": partial(_alone, "ours", frames[0], folder),
                "folder": partial(_folder, frames, jobs),
            },
            runs,
        )
    measured = {
        f"{way}_{quantity}": [result[quantity] for result in results[way]]
        for way in ("plain", "ours")
        for quantity in ("seconds", "megabytes")
    }
    pairs = zip(results["plain"], results["ours"])
    measured["same"] = [100 * np.mean(a["labels"] == b["labels"]) for a, b in pairs]
    measured["rate"] = results["folder"]
    measured["plain_rate"] = [1 / seconds for seconds in measured["plain_seconds"]]
    size = f"{hw[0]}x{hw[1]}"
    plain, ours = f"crf_plain_{CLASSES}classes_{size}", f"crf_{PRESENT}of{CLASSES}classes_{size}"
    folder_plain, folder_ours = f"crf_folder_plain_{size}", f"crf_folder_{size}_{jobs}processes"
    memory = f"{plain}_memory"
    return [
        row(plain, "s", measured["plain_seconds"]),
        row(ours, "s", measured["ours_seconds"], plain, measured["plain_seconds"]),
        row(memory, "MB", measured["plain_megabytes"]),
        row(
            f"{ours}_memory", "MB",
            measured["ours_megabytes"], memory, measured["plain_megabytes"],
        ),
        row(f"{ours}_identical_labels", "%", measured["same"]),
        row(folder_plain, "images/s", measured["plain_rate"]),
        row(folder_ours, "images/s", measured["rate"], folder_plain, measured["plain_rate"]),
    ]  # fmt: skip


def make_frame(folder: Path, number: int, hw: tuple[int, int]) -> Frame:
    """Write a noisy image of coloured regions, and a map of uncertain probabilities for it."""
    random = np.random.default_rng(number)
    seeds = random.integers(0, PRESENT, (12, 24)).astype(np.uint8)
    regions = cv2.resize(seeds, hw[::-1], interpolation=cv2.INTER_NEAREST)
    colours = random.integers(40, 216, (PRESENT, 3))
    image = colours[regions] + random.normal(0, 10, (*hw, 3))
    scores = np.full((CLASSES, *hw), -30, np.float32)
    coarse = (hw[0] // 8, hw[1] // 8)
    for train_id in range(PRESENT):
        noise = cv2.resize(random.normal(0, 1.2, coarse).astype(np.float32), hw[::-1])
        inside = cv2.GaussianBlur((regions == train_id).astype(np.float32), (0, 0), 9)
        scores[train_id] = 5 * inside + noise
    np.exp(scores, out=scores)
    frame = Frame(f"{number}", folder / f"{number}.png", folder / f"{number}.npz")
    cv2.imwrite(str(frame.image), image.clip(0, 255).astype(np.uint8)[..., ::-1])
    write_probabilities(frame.probabilities, scores / scores.sum(axis=0))
    return frame


def plain_labels(image: np.ndarray, probabilities: np.ndarray, crf: Crf) -> np.ndarray:
    """Refine as pydensecrf's documentation shows."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    height, width = image.shape[:2]
    model = DenseCRF2D(width, height, len(probabilities))
    model.setUnaryEnergy(unary_from_softmax(probabilities))
    model.addPairwiseGaussian(sxy=crf.sigma_gamma, compat=crf.w2)
    model.addPairwiseBilateral(sxy=crf.sigma_alpha, srgb=crf.sigma_beta, rgbim=image, compat=crf.w1)
    labels = np.argmax(model.inference(crf.iterations), axis=0)
    return labels.reshape(height, width).astype(np.uint8)


def _alone(way: str, frame: Frame, folder: Path) -> dict[str, Any]:
    """Refine a frame in its own process."""
    labels = folder / f"{way}.npy"
    measured = in_own_process(__spec__.name, way, frame.image, frame.probabilities, labels)
    return measured | {"labels": np.load(labels)}


def _folder(frames: list[Frame], jobs: int) -> float:
    """Refine frames in parallel, from files to labels; return images per second."""
    start = time.perf_counter()
    for _ in in_processes(partial(refine_frame, crf=Crf()), frames, "refining", jobs):
        pass
    return len(frames) / (time.perf_counter() - start)


def measure() -> None:
    """Run as the child process: report the time from image and map in memory to labels, and the
    peak memory.
    """
    way, image_file, map_file, out = sys.argv[1:]
    image, probabilities = read_frame(Frame("", Path(image_file), Path(map_file)))
    if way == "plain":
        floats = (probabilities / PROBABILITY_SCALE).astype(np.float32)
        read_frame.cache_clear()
        del probabilities
    start = time.perf_counter()
    labels = plain_labels(image, floats, Crf()) if way == "plain" else refine(
        image, probabilities, Crf()
    )  # fmt: skip
    seconds = time.perf_counter() - start
    np.save(out, labels)
    print(json.dumps({"seconds": seconds, "megabytes": peak_memory()}))


if __name__ == "__main__":
    measure()
