"""The crop of (epoch, index): a pure function of the two and the seed, whatever the source."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np

from .errors import DataError
from .frames import Frames
from .labels import to_train_ids
from .patches import Centre, Patch, plan
from .transforms import (
    Crop,
    change_appearance,
    draw_angle,
    draw_blur,
    draw_colours,
    draw_crop,
    enclosing,
    find_window,
    resize_window,
    turn,
)  # fmt: skip

log = logging.getLogger("data_iter")
Value = TypeVar("Value")
HEADER_THREADS = 16  # opening thousands of files is mostly waiting, most of all on a network drive


class CropReader:
    """Cuts crops from frames.

    Parameters
    ----------
    frames : Frames
        Where pixels come from: :func:`data_iter.frames.open_frames`.
    label_lut : ndarray (256,) int16
        Label value to train id, -1 where the class table has none.
    ignore_id : int
        Label of padding.
    mean_rgb : sequence of float
        Subtracted from the image; padding is the mean, 0 after the subtraction.
    patches, patch_hw, patch_stride, patch_jitter
        Which regions an epoch visits: :func:`data_iter.patches.plan`.
    crop_hw, scales, mirror, seed
        How a crop is drawn: :func:`data_iter.transforms.draw_crop`.
    jitter, blur, rotate
        How its colours change, how far it is blurred and by how many degrees turned at most:
        ``draw_colours``, ``draw_blur`` and ``draw_angle`` of :mod:`data_iter.transforms`.
    on_bad_sample : str
        ``stop`` raises the ``DataError`` of an unusable frame; ``skip`` logs it, counts it and
        takes a crop of another frame instead, drawn from (seed, epoch, index) too.
    max_bad_share : float
        With ``skip``, more than this share of bad frames is an error too.
    """

    def __init__(
        self,
        frames: Frames,
        *,
        label_lut: np.ndarray,
        ignore_id: int,
        mean_rgb: Sequence[float],
        crop_hw: tuple[int, int],
        patches: str,
        patch_hw: tuple[int, int],
        patch_stride: int,
        patch_jitter: int,
        scales: Sequence[float],
        mirror: bool,
        jitter: Sequence[float] = (0, 0, 0, 0),
        blur: float = 0.0,
        rotate: float = 0.0,
        seed: int,
        on_bad_sample: str = "stop",
        max_bad_share: float = 0.01,
    ):
        self.crop_hw = crop_hw
        self.bad: set[int] = set()  # numbers of the frames that could not be used
        self._frames = frames
        self._ignore = ignore_id
        self._seed = seed
        self._lut = label_lut
        self._mean_bgr = np.asarray(mean_rgb, np.float32)[::-1]
        self._scales, self._mirror = scales, mirror
        self._jitter, self._blur, self._rotate = jitter, blur, rotate
        self._skip = on_bad_sample == "skip"
        self._max_bad = max_bad_share * len(frames)
        self._checked: set[int] = set()  # frames with a checked label
        self._lock = threading.Lock()
        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            sizes = list(pool.map(self._size, range(len(frames))))
        plan_of = functools.cache(
            lambda hw: plan(patches, hw, patch_hw, patch_stride, patch_jitter)
        )  # frames of one size share theirs
        self._sizes = sizes
        self._visits: list[tuple[int, tuple[int, int], Patch | Centre]] = [
            (number, hw, patch)
            for number, hw in enumerate(sizes)
            if hw is not None
            for patch in plan_of(hw)
        ]

    def __len__(self) -> int:
        """Count the patches of an epoch."""
        return len(self._visits)

    @property
    def frames(self) -> int:
        """Count the frames that the patches are of."""
        return sum(hw is not None for hw in self._sizes)

    @property
    def long_side(self) -> int:
        """Median length of the images' longer sides in pixels."""
        return int(np.median([max(hw) for _, hw, _ in self._visits]))

    def digest(self) -> str:
        """Return a digest of the frames' names and sizes: the data set, independent of the mode."""
        frames = ((self._frames.key(n), hw) for n, hw in enumerate(self._sizes) if hw)
        text = "".join(f"{key}\t{height}x{width}\n" for key, (height, width) in frames)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def count_classes(self) -> np.ndarray:
        """Count the pixels of each train id in all labels, (256,) int64; bad frames have none."""

        def count(label: np.ndarray, name: str) -> np.ndarray:
            return np.bincount(to_train_ids(label, self._lut, name).ravel(), minlength=256)

        return sum(self._of_labels(count), np.zeros(256, np.int64))

    def label_digest(self) -> str:
        """Return a digest of all labels' values, however they are stored; bad frames have none."""
        found = self._of_labels(lambda label, name: hashlib.sha256(label.tobytes()).digest())
        return hashlib.sha256(b"".join(found)).hexdigest()[:16]

    def _of_labels(self, function: Callable[[np.ndarray, str], Value]) -> list[Value]:
        """Call a function with each label and where it comes from, in order."""

        def call(number: int) -> list[Value]:
            try:
                return [function(self._frames.read_label(number), self._frames.name(number))]
            except DataError as error:
                self._count_bad(number, error)
                return []

        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            return list(itertools.chain(*pool.map(call, range(len(self._frames)))))

    def order(self, epoch: int) -> np.ndarray:
        """Return the shuffled indices of ``epoch``'s patches."""
        return np.random.default_rng((self._seed, epoch)).permutation(len(self))

    def name(self, index: int) -> str:
        """Say where the frame of patch ``index`` comes from."""
        return self._frames.name(self._visits[index][0])

    def read(self, epoch: int, index: int, image_out: np.ndarray) -> np.ndarray:
        """Write the crop's image into ``image_out`` (3, h, w) float32, RGB minus the mean.

        Returns its train ids (h, w) uint8.
        """
        visit = index
        for attempt in itertools.count(1):
            random = np.random.default_rng((self._seed, epoch, index, attempt)[: 2 + attempt])
            if attempt > 1:
                visit = int(random.integers(len(self)))
            frame, hw, patch = self._visits[visit]
            try:
                return self._cut(random, frame, hw, patch, image_out)
            except DataError as error:
                self._count_bad(frame, error)
        raise AssertionError  # for the type checker: the loop never ends

    def _cut(
        self,
        random: np.random.Generator,
        frame: int,
        hw: tuple[int, int],
        patch: Patch | Centre,
        image_out: np.ndarray,
    ) -> np.ndarray:
        crop = draw_crop(random, patch, self.crop_hw, self._scales, self._mirror)
        colours = draw_colours(random, self._jitter) if any(self._jitter) else None
        blur = draw_blur(random, self._blur) if self._blur else 0.0
        angle = draw_angle(random, self._rotate) if self._rotate else 0.0
        name = self._frames.name(frame)
        if frame not in self._checked:  # once, for the whole label: a crop may miss what is wrong
            to_train_ids(self._frames.read_label(frame), self._lut, name)
            self._checked.add(frame)
        if not angle:
            return self._upright(frame, hw, crop, colours, blur, image_out)
        (height, width), (rows, columns) = self.crop_hw, enclosing(self.crop_hw, angle)
        top, left = crop.top - (rows - height) // 2, crop.left - (columns - width) // 2
        image = np.empty((3, rows, columns), np.float32)
        crop = crop._replace(top=top, left=left)
        classes = self._upright(frame, hw, crop, colours, blur, image)
        for plane, plane_out in zip(image, image_out):
            plane_out[:] = turn(plane, angle, self.crop_hw, cv2.INTER_LINEAR, 0)
        return turn(classes, angle, self.crop_hw, cv2.INTER_NEAREST, self._ignore)

    def _upright(
        self,
        frame: int,
        hw: tuple[int, int],
        crop: Crop,
        colours: np.ndarray | None,
        blur: float,
        image_out: np.ndarray,
    ) -> np.ndarray:
        """Cut a crop of the size of ``image_out`` (3, h, w); return its train ids (h, w)."""
        name, crop_hw = self._frames.name(frame), (image_out.shape[1], image_out.shape[2])
        window = find_window(hw, crop.scale, crop.top, crop.left, crop_hw)
        image, label = self._frames.read(frame, window.rows, window.columns)
        pixels = resize_window(image, window, cv2.INTER_LINEAR)
        values = resize_window(label, window, cv2.INTER_NEAREST)
        classes = to_train_ids(values, self._lut, name)
        (y, x), (height, width) = window.offset, window.hw
        if classes.size:
            pixels = change_appearance(pixels, colours, blur)
        if crop.mirror and classes.size:
            pixels, classes = cv2.flip(pixels, 1), cv2.flip(classes, 1)
            x = crop_hw[1] - x - width
        if (height, width) == crop_hw:
            self._subtract_mean(pixels, image_out)
            return classes
        label_out = np.full(crop_hw, self._ignore, np.uint8)
        image_out.fill(0)
        if classes.size:
            label_out[y : y + height, x : x + width] = classes
            self._subtract_mean(pixels, image_out[:, y : y + height, x : x + width])
        return label_out

    def _subtract_mean(self, bgr: np.ndarray, out: np.ndarray) -> None:
        # Plane by plane, and in two steps, is ten times faster than through a transposed view.
        for plane, mean, plane_out in zip(cv2.split(bgr), self._mean_bgr, out[::-1]):
            plane_out[:] = plane
            plane_out -= mean

    def _size(self, number: int) -> tuple[int, int] | None:
        try:
            return self._frames.hw(number)
        except DataError as error:
            self._count_bad(number, error)
            return None

    def _count_bad(self, number: int, error: DataError) -> None:
        if not self._skip:
            raise error
        with self._lock:
            if number not in self.bad:
                self.bad.add(number)
                log.warning("skipped (%d so far): %s", len(self.bad), error)
            # Every crop checks this, or the other threads would go on searching for a good frame.
            if len(self.bad) > self._max_bad or len(self.bad) == len(self._frames):
                raise DataError(
                    f"{len(self.bad)} of {len(self._frames)} frames cannot be used, more than "
                    f"data.max_bad_share allows; the last: {error}"
                )
