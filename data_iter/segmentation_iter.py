"""The multi-threaded ``mx.io.DataIter``: an epoch of random crops, the same for any thread count.

OpenCV and NumPy release the interpreter lock, so threads suffice; every crop is written straight
into its place in the batch.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import mxnet as mx
import numpy as np

from .cells import pack_labels
from .crops import CropReader
from .errors import DataError


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
        Worker threads; None or 0: one for each core that this process may use.
    queue : int
        Batches prepared ahead at most, which bounds the memory.
    num_parts, part_index : int
        This iterator takes every ``num_parts``-th patch of each epoch's shuffled order. All parts
        give the same number of batches, so that no worker waits for another at an epoch's end.

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
        if not 0 <= part_index < num_parts:
            raise ValueError(f"part_index {part_index}: expected 0 to {num_parts - 1}")
        if len(reader) < num_parts:
            raise DataError(f"{len(reader)} patches cannot be shared by {num_parts} workers")
        largest = len(range(0, len(reader), num_parts))
        self._batches = -(-largest // batch_size)
        cv2.setNumThreads(1)  # each worker is one thread; OpenCV's own would fight for the cores
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "crop")
        self._process = os.getpid()
        self._end = weakref.finalize(self, _shut_down, self._pool)
        self._pending: deque[tuple[np.ndarray, np.ndarray, np.ndarray, list[Future]]] = deque()
        self.seek(0, 0)

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self._batches

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
        """Go to a batch of an epoch; the next batches equal those of an uninterrupted run."""
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
        if self._process != os.getpid():
            raise RuntimeError("next() in a forked process, which has none of the threads")
        if not self._pending:
            raise StopIteration
        images, labels, indices, crops = self._pending.popleft()
        for crop in crops:
            crop.result()
        batch = mx.io.DataBatch(
            data=[mx.nd.from_numpy(images, zero_copy=True)],
            label=[mx.nd.from_numpy(labels, zero_copy=True)],
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
            images, labels = (
                np.empty(described.shape, np.float32)
                for described in (*self.provide_data, *self.provide_label)
            )
            crops = [
                self._pool.submit(
                    _write, self.reader, self.epoch, int(index), self._layout, *places
                )
                for index, *places in zip(indices, images, labels)
            ]
            self._pending.append((images, labels, indices, crops))
            self._submitted += 1

    def _drop_pending(self) -> None:
        while self._pending:
            for crop in self._pending.popleft()[3]:
                crop.cancel()


def _shut_down(pool: ThreadPoolExecutor) -> None:
    # RuntimeError: the last reference went in one of its own threads, which ends by itself.
    with contextlib.suppress(RuntimeError):
        pool.shutdown(wait=True, cancel_futures=True)


def _write(
    reader: CropReader,
    epoch: int,
    index: int,
    layout: tuple[int, int],
    image_out: np.ndarray,
    label_out: np.ndarray,
) -> None:
    """Write one crop into its place.

    It holds no reference to the iterator, so that the iterator can be garbage collected.
    """
    label_out[:] = pack_labels(reader.read(epoch, index, image_out), *layout)
