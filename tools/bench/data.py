"""How fast crops are loaded from 2048x1024 frames: plain loader, direct, prepared, cached mode."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from configs.datasets import load_dataset
from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Data, Network
from data_iter.datasets import LAYOUTS, find_samples
from data_iter.frames import FileFrames
from tools.bench.measuring import in_turn, row
from tools.dataset.packing import pack
from train.data import open_batches
from train.machine import PROJECT, peak_memory

CONFIG = PROJECT / "configs" / "duc_hdc.cfg"
FRAMES = 12
FRAME_HW = (1024, 2048)
NOISE = 2.4  # grey levels of camera noise; PNGs then take 3.4 MB, as those of Cityscapes do
BATCH = 4
SECONDS = 2.0  # length of each measurement
PLANS = {544: "12fold", 880: "7fold"}  # crop side: plan of sections 4.1.1 and 4.1.2
JPEG_QUALITY = 95


def rows(
    *,
    runs: int = 5,
    sizes: Sequence[tuple[int, int]] = ((544, 544),),
    threads: Sequence[int] = (2,),
    frames: int = FRAMES,
    seconds: float = SECONDS,
) -> Iterator[dict]:
    """Measure every mode and thread count in turn; ratios are to the plain loader.

    ``sizes`` are the square crops of :data:`PLANS`.

    ``..._memory`` is the peak of the process (for the plain loader, the sum over its two
    processes). ``..._growth`` is the increase of the peak after the first epoch, over at least one
    whole epoch.
    """
    sides = _sides(sizes)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_frames(root / "frames", frames)
        samples = find_samples("cityscapes", root / "frames", "train")
        source = FileFrames(samples, LAYOUTS["cityscapes"].read_label)
        for name, quality in (("png", None), ("jpeg", JPEG_QUALITY)):
            pack(samples, source, root / name, "train", quality)
        for side in sides:
            results = in_turn(_measures(root, side, threads, seconds), runs)
            yield from _rows(results, f"data_naive_{side}_2processes")


def _sides(sizes: Sequence[tuple[int, int]]) -> list[int]:
    for height, width in sizes:
        if height != width or height not in PLANS:
            known = ", ".join(map(str, PLANS))
            raise ConfigError(f"--sizes {height}x{width}: expected some of {known}")
    return [side for side, _ in sizes]


def _rows(results: dict[str, list[tuple[float, float, float]]], plain: str) -> list[dict]:
    found = []
    others = [rate for rate, _, _ in results[plain]]
    for name, measured in results.items():
        rates, peaks, growth = zip(*measured)
        found += [
            row(name, "samples/s", rates, plain, others),
            row(f"{name}_memory", "MB", peaks),
            row(f"{name}_growth", "MB", growth),
        ]
    return found


def _measures(
    root: Path, side: int, threads: Sequence[int], seconds: float
) -> dict[str, Callable[[], tuple[float, float, float]]]:
    """Return the measurements by name: functions that return samples/s, peak MB and growth MB."""
    measures: dict[str, Callable] = {
        f"data_naive_{side}_2processes": partial(_naive, root / "frames", side, seconds)
    }
    for count in threads:
        for mode, folder, cache_mb in (
            ("direct", "frames", 0),
            ("prepared_png", "png", 0),
            ("prepared_jpeg", "jpeg", 0),
            ("cached", "frames", 1 << 20),
        ):
            measures[f"data_{mode}_{side}_{count}threads"] = partial(
                _apart, _iterate, root / folder, cache_mb, side, count, seconds
            )
    return measures


def write_frames(root: Path, count: int) -> None:
    """Write smooth scenes with a camera's noise, and labels of blocks, as Cityscapes has them."""
    random = np.random.default_rng(0)
    folders = [root / "leftImg8bit/train/town", root / "gtFine/train/town"]
    for folder in folders:
        folder.mkdir(parents=True)
    size = FRAME_HW[::-1]
    for number in range(count):
        scene = cv2.resize(
            random.integers(0, 256, (32, 64, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC
        )
        noisy = np.clip(scene + random.normal(0, NOISE, scene.shape), 0, 255).astype(np.uint8)
        blocks = random.integers(0, 34, (16, 32), np.uint8)
        label = cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)
        name = f"town_{number:06d}_000019"
        cv2.imwrite(str(folders[0] / f"{name}_leftImg8bit.png"), noisy)
        # With Pillow, as the data set's own scripts write them.
        Image.fromarray(label).save(folders[1] / f"{name}_gtFine_labelIds.png")


def _iterate(root: Path, cache_mb: int, side: int, threads: int, seconds: float):
    config = load_config(
        CONFIG,
        [
            f"data.crop_hw={side},{side}", f"data.patches={PLANS[side]}",
            f"data.cache_mb={cache_mb}", f"data.threads={threads}", f"solver.batch_size={BATCH}",
        ],
    )  # fmt: skip
    batches = open_batches(config, load_dataset("cityscapes"), root)
    for _ in batches:  # the first epoch fills the cache and everything else that is filled once
        pass
    batches.reset()
    for _ in range(config.data.queue):  # batches prepared before the clock starts
        batches.next()
    count, before, start = 0, peak_memory(), time.perf_counter()
    while time.perf_counter() - start < seconds or count < BATCH * len(batches):
        try:
            batches.next()
        except StopIteration:
            batches.reset()
            continue
        count += BATCH
    rate = count / (time.perf_counter() - start)
    batches.close()
    peak = peak_memory()
    return rate, peak, peak - before


def _naive(root: Path, side: int, seconds: float) -> tuple[float, ...]:
    """Run the plain loader in two processes that share nothing and send only counts back."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_naive_worker, args=(root, side, seconds, seed, barrier, queue))
        for seed in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    return tuple(map(sum, zip(*found)))


def _naive_worker(root: Path, side: int, seconds: float, seed: int, barrier, queue) -> None:
    cv2.setNumThreads(1)
    random = np.random.default_rng(seed)
    mean, scales = np.array(Network().mean_rgb), Data().scales
    samples = find_samples("cityscapes", root, "train")
    for sample in samples:  # warm up, as the other modes do
        naive_crop(sample, side, random, mean, scales)
    barrier.wait()
    count, before, start = 0, peak_memory(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        sample = samples[random.integers(len(samples))]
        naive_crop(sample, side, random, mean, scales)
        count += 1
    rate = count / (time.perf_counter() - start)
    peak = peak_memory()
    queue.put((rate, peak, peak - before))


def naive_crop(sample, side: int, random: np.random.Generator, mean: np.ndarray, scales):
    """Decode and resize the whole frame, then crop it and convert it to float64."""
    scale = scales[random.integers(len(scales))]
    image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
    label = cv2.imread(str(sample.label), cv2.IMREAD_UNCHANGED)
    image = cv2.resize(image, None, fx=scale, fy=scale)
    label = cv2.resize(label, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    top, left = (int(random.integers(max(length - side, 0) + 1)) for length in label.shape)
    image, label = (
        image[top : top + side, left : left + side],
        label[top : top + side, left : left + side],
    )
    if random.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image_out, label_out = np.zeros((3, side, side)), np.full((side, side), 255.0)
    height, width = label.shape
    image_out[:, :height, :width] = (image.astype(np.float64) - mean).transpose(2, 0, 1)
    label_out[:height, :width] = label
    return image_out, label_out


def _apart(function: Callable, *args):
    """Call a function in its own process, so that its memory is measured alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)
