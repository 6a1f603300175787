"""The multi-threaded ``mx.io.DataIter``: an epoch of random crops, the same for any thread count.

OpenCV and NumPy release the interpreter lock, so threads suffice; every crop is written straight into
its place in the batch.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import mxnet as mx
import numpy as np

from .cells import pack_labels
from .datasets import Sample
from .errors import DataError
from .files import read_image, read_label, read_size
from .labels import to_train_ids
from .patches import plan
from .transforms import draw_crop, resized_window


class CropReader:
    """Cuts the crop of (epoch, index) from its image: a pure function of the two and the seed.

    Parameters
    ----------
    samples : sequence of Sample
        The images of the epoch.
    label_lut : ndarray (256,) int16
        Label value to train id, -1 where the class table has none.
    ignore_id : int
        Label of padding.
    mean_rgb : sequence of float
        Subtracted from the image; padding is the mean, 0 after the subtraction.
    patches, patch_hw, patch_stride
        Which regions are visited: :func:`data_iter.patches.plan`.
    crop_hw, scales, mirror, seed
        How a crop is drawn: :func:`data_iter.transforms.draw_crop`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        label_lut: np.ndarray,
        ignore_id: int,
        mean_rgb: Sequence[float],
        crop_hw: tuple[int, int],
        patches: str,
        patch_hw: tuple[int, int],
        patch_stride: int,
        scales: Sequence[float],
        mirror: bool,
        seed: int,
    ):
        self.crop_hw = crop_hw
        self.ignore_id = ignore_id
        self.seed = seed
        self._lut = label_lut
        self._mean = np.asarray(mean_rgb, np.float32)
        self._draw = {"crop_hw": crop_hw, "scales": scales, "mirror": mirror}
        self._visits = [
            (sample, patch)
            for sample in samples
            for patch in plan(patches, read_size(sample.image), crop_hw, patch_hw, patch_stride)
        ]

    def __len__(self) -> int:
        """Count the patches of an epoch."""
        return len(self._visits)

    def order(self, epoch: int) -> np.ndarray:
        """Return the shuffled indices of ``epoch``'s patches."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self))

    def file(self, index: int) -> str:
        """Name the image that patch ``index`` comes from."""
        return str(self._visits[index][0].image)

    def read(self, epoch: int, index: int, image_out: np.ndarray, label_out: np.ndarray) -> None:
        """Write the crop into ``image_out`` (3, h, w) float32 and ``label_out`` (h, w) float32."""
        sample, patch = self._visits[index]
        image = read_image(sample.image)
        label = read_label(sample.label)
        if label.shape != image.shape[:2]:
            raise DataError(
                f"{sample.label}: the label is {label.shape[1]}x{label.shape[0]}, "
                f"its image {image.shape[1]}x{image.shape[0]} (width x height)"
            )
        random = np.random.default_rng((self.seed, epoch, index))
        crop = draw_crop(random, patch, **self._draw)
        where = (crop.scale, crop.top, crop.left, self.crop_hw)
        pixels, y, x = resized_window(image, *where, cv2.INTER_LINEAR)
        classes, _, _ = resized_window(label, *where, cv2.INTER_NEAREST)
        if crop.mirror:
            image_out, label_out = image_out[:, :, ::-1], label_out[:, ::-1]
        inside = (slice(y, y + pixels.shape[0]), slice(x, x + pixels.shape[1]))
        image_out.fill(0)
        np.subtract(pixels, self._mean, out=image_out[(slice(None), *inside)].transpose(1, 2, 0))
        label_out.fill(self.ignore_id)
        label_out[inside] = to_train_ids(classes, self._lut, sample.label)


class SegmentationIter(mx.io.DataIter):
    """Batches of ``data`` (N, 3, h, w) float32 and ``seg_loss_label`` (N, cells) float32.

    Parameters
    ----------
    reader : CropReader
        Gives the crops.
    batch_size : int
        Crops per batch; the last batch of an epoch is filled up from the epoch's beginning.
    cell, block : int
        How labels are packed: :func:`data_iter.cells.pack_labels`.
    threads : int
        Worker threads.
    queue : int
        Batches prepared ahead at most, which bounds the memory.
    num_parts, part_index : int
        Of each epoch's shuffled order this iterator takes every ``num_parts``-th patch.

    A worker's exception is raised by :meth:`next`. :meth:`close`, and garbage collection, end the
    threads.
    """

    def __init__(
        self,
        reader: CropReader,
        batch_size: int,
        cell: int,
        block: int,
        threads: int | None = None,
        queue: int = 4,
        num_parts: int = 1,
        part_index: int = 0,
    ):
        super().__init__(batch_size)
        self.reader = reader
        self.epoch = 0
        self._layout = (cell, block)
        self._queue = queue
        self._part = slice(part_index, None, num_parts)
        self._length = len(range(len(reader))[self._part])
        if not self._length:
            raise DataError(f"part {part_index} of {num_parts} has none of {len(reader)} patches")
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "crop")
        self._end = weakref.finalize(self, self._pool.shutdown, wait=True, cancel_futures=True)
        self._pending: deque[tuple[np.ndarray, np.ndarray, np.ndarray, list[Future]]] = deque()
        self.seek(0, 0)

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return -(-self._length // self.batch_size)

    @property
    def provide_data(self) -> list[mx.io.DataDesc]:
        """Describe ``data``."""
        return [mx.io.DataDesc("data", (self.batch_size, 3, *self.reader.crop_hw))]

    @property
    def provide_label(self) -> list[mx.io.DataDesc]:
        """Describe ``seg_loss_label``."""
        (height, width), cell = self.reader.crop_hw, self._layout[0]
        return [mx.io.DataDesc("seg_loss_label", (self.batch_size, height * width // cell**2))]

    def seek(self, epoch: int, batch: int) -> None:
        """Go to a batch of an epoch; the batches that follow are those of an unbroken run."""
        self._drop_pending()
        self.epoch = epoch
        self._order = self.reader.order(epoch)[self._part]
        self._submitted = batch
        self._fill()

    def reset(self) -> None:
        """Begin the next epoch."""
        self.seek(self.epoch + 1, 0)

    def next(self) -> mx.io.DataBatch:
        """Return the next batch; ``index`` holds the patches' numbers in the epoch's plan."""
        if not self._end.alive:
            raise RuntimeError("next() on a closed iterator")
        if not self._pending:
            raise StopIteration
        images, labels, indices, crops = self._pending.popleft()
        for crop in crops:
            crop.result()
        batch = mx.io.DataBatch(
            data=[mx.nd.from_numpy(images, zero_copy=True)],
            label=[mx.nd.from_numpy(pack_labels(labels, *self._layout), zero_copy=True)],
            pad=0,
            index=indices,
        )
        self._fill()
        return batch

    def close(self) -> None:
        """End the worker threads; safe to call twice."""
        self._drop_pending()
        self._end()

    def _fill(self) -> None:
        while self._submitted < len(self) and len(self._pending) < self._queue:
            start = self._submitted * self.batch_size
            indices = np.take(self._order, range(start, start + self.batch_size), mode="wrap")
            images = np.empty((self.batch_size, 3, *self.reader.crop_hw), np.float32)
            labels = np.empty((self.batch_size, *self.reader.crop_hw), np.float32)
            crops = [
                self._pool.submit(self.reader.read, self.epoch, int(index), image, label)
                for index, image, label in zip(indices, images, labels)
            ]
            self._pending.append((images, labels, indices, crops))
            self._submitted += 1

    def _drop_pending(self) -> None:
        while self._pending:
            for crop in self._pending.popleft()[3]:
                crop.cancel()
