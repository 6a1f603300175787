"""From image files to label files: read, compute and write at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs.datasets import DatasetSpec
from data_iter.errors import DataError
from data_iter.image_files import read_size
from tools.inference.files import results_of
from tools.inference.predictor import Predictor
from tools.shared.pictures import colours, overlay, write_labels
from tools.shared.probabilities import pack, quantise, write_probabilities
from train.atomic import atomic_write, check_room, free_room
from train.legend import add_legend
from train.segmenter import most_probable

JPEG_QUALITY = 90
JPEG_SIDE = 65500  # pixels at most
BYTES = 2  # a class and pixel, before a probability map is packed
SPARE_ROOM = 1.1  # the estimate of the size comes from one image

Result = tuple["np.ndarray | Future", "np.ndarray | None"]  # labels (H, W), probabilities (L, H, W)
Refine = Callable[[np.ndarray, np.ndarray], Future]


def check_maps_fit(images: Sequence[Path], network: Predictor, out: Path) -> None:
    """Raise ``RunError`` if the probability maps of ``images`` would fill the disk.

    If they might not fit, one is computed, and its packed size is used for all.
    """
    pixels = {image: count for image in images if (count := _pixels(image))}
    classes, total = network.dataset.num_classes, sum(pixels.values())
    if BYTES * classes * total <= free_room(out):
        return
    for image, count in pixels.items():
        try:
            size = len(pack(network.probabilities(image)))
        except DataError:  # its turn comes
            continue
        what = f"the probability maps of {len(pixels)} images take about"
        check_room(out, int(SPARE_ROOM * size * total / count), what)
        return


def _pixels(image: Path) -> int:
    try:
        return math.prod(read_size(image))
    except DataError:
        return 0


def overlapped(
    items: Iterable[Any],
    read: Callable[[Any], Any],
    compute: Callable[[Any], Any],
    write: Callable[[Any, Any, Any], Any],
) -> Iterator[Any]:
    """Run ``write(item, value, compute(value))`` for ``value = read(item)`` of each item.

    While the network computes one item in the calling thread, other threads read the next item and
    write the last one; only these three are in memory. Yields the results of ``write`` in order.
    The first exception ends it after the current write.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        items = iter(items)
        writing = None
        item = next(items, None)
        reading = reader.submit(read, item)
        while item is not None:
            value = reading.result()
            following = next(items, None)
            if following is not None:
                reading = reader.submit(read, following)
            result = compute(value)
            if writing:
                yield writing.result()
            writing = writer.submit(write, item, value, result)
            item = following
        if writing:
            yield writing.result()


def write_overlay(
    path: Path,
    image: np.ndarray,
    labels: np.ndarray,
    dataset: DatasetSpec,
    legend: bool = False,
) -> None:
    """Write the (H, W, 3) uint8 RGB image blended with its classes' colours as a JPEG.

    An image with a side of more pixels than a JPEG can have, 65500, is shown smaller. A
    ``legend`` of the classes stands below the picture.
    """
    factor = JPEG_SIDE / max(labels.shape)
    if factor < 1:
        wh = tuple(max(1, int(side * factor)) for side in labels.shape[::-1])
        image = cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, wh, interpolation=cv2.INTER_NEAREST)
    picture = overlay(image, colours(labels, dataset))
    if legend and max(picture.shape) < JPEG_SIDE // 2:
        picture = add_legend(picture, dataset)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def segment(image: np.ndarray, network: Predictor, refine: Refine | None, keep: bool) -> Result:
    """Return labels, or the future of the CRF's labels, and probabilities if they are kept."""
    if not (refine or keep):
        return network.labels(image), None
    probabilities = network.probabilities(image)
    stored = quantise(probabilities)
    labels = refine(image, stored) if refine else most_probable(probabilities)
    return labels, stored if keep else None


def write_result(
    image_file: Path,
    image: np.ndarray,
    result: Result,
    out: Path,
    dataset: DatasetSpec,
    legend: bool = False,
) -> np.ndarray:
    """Write one image's files and return its pixels of each class.

    The label file is written last: if it is there, so are the others, unless an earlier call wrote
    no probabilities.
    """
    labels, probabilities = result
    files = results_of(image_file, out)
    if isinstance(labels, Future):
        labels = labels.result()
    if probabilities is not None:
        write_probabilities(files.probabilities, probabilities)
    write_overlay(files.overlay, image, labels, dataset, legend)
    write_labels(files.labels, labels, dataset)
    return np.bincount(labels.ravel(), minlength=dataset.num_classes)
