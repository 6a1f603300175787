"""What the three benchmarks accept: names, sizes, modes and values of the pictures in an archive.

Cityscapes pixel-level labelling (cityscapesScripts, evalPixelLevelSemanticLabeling.py), KITTI road
(www.cvlibs.net/datasets/kitti/eval_road.php) and PASCAL VOC2012 segmentation (development kit).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Mapping, Set

import cv2
import numpy as np
from PIL import Image

from configs.datasets import DatasetSpec
from data_iter.labels import ranges
from tools.scoring.classes import label_values
from tools.scoring.kitti_bev import BEV_HW

# Frames of the Cityscapes test set per city, 1525 in all.
CITYSCAPES_TEST = {
    "berlin": 544,
    "bielefeld": 181,
    "bonn": 46,
    "leverkusen": 58,
    "mainz": 298,
    "munich": 398,
}
CITYSCAPES_HW = (1024, 2048)
KITTI_TEST = {"um_lane": 96, "um_road": 96, "umm_road": 94, "uu_road": 100}
VOC_TEST = 1456


class Benchmark:
    """The rules of one benchmark.

    A *frame* names the picture's image (``berlin_000000_000019``, ``um_road_000000``,
    ``2008_000006``); a *member* is the picture's path in the archive.

    Parameters
    ----------
    dataset : DatasetSpec
        The class table.
    sizes : mapping of str to (height, width), optional
        The required frames, and the sizes of their images; by default the official test set.
    """

    archive = ".zip"
    mode, mode_name = "L", "8-bit grey"  # Pillow's name of the pixel format, and ours
    example = ""  # a member's name

    def __init__(self, dataset: DatasetSpec, sizes: Mapping[str, tuple[int, int]] | None = None):
        self.dataset = dataset
        self.sizes = sizes

    def member(self, frame: str) -> str:
        """Name a frame's picture in the archive."""
        return f"{frame}.png"

    def frame(self, member: str) -> str | None:
        """Name the frame of an archive's member; None if no picture has such a name."""
        raise NotImplementedError

    def encode(self, picture: np.ndarray) -> bytes:
        """Encode (H, W) uint8 as the PNG that the benchmark reads."""
        return cv2.imencode(".png", picture)[1].tobytes()

    def legal(self) -> Collection[int]:
        """List the values that a picture may hold."""
        return range(256)

    def expected_hw(self, frame: str) -> tuple[int, int] | None:
        """Size of a frame's picture; None if it is not known."""
        return self.sizes.get(frame) if self.sizes is not None else None

    def picture_problems(self, frame: str, image: Image.Image, values: np.ndarray) -> list[str]:
        """List the faults of a picture whose pixels hold ``values``."""
        problems = []
        if image.format != "PNG":
            problems.append(f"a {image.format}, expected a PNG")
        if image.mode != self.mode:
            problems.append(f"mode {image.mode}, expected {self.mode} ({self.mode_name})")
        hw = self.expected_hw(frame)
        if hw and image.size != hw[::-1]:
            found = f"{image.width}x{image.height}"
            problems.append(f"{found}, expected {hw[1]}x{hw[0]} (width x height)")
        outside = np.array(sorted(set(values.tolist()) - set(self.legal())))
        if outside.size and image.mode == self.mode:
            legal = ranges(np.array(sorted(self.legal())))
            problems.append(f"values {ranges(outside)}, expected {legal}")
        return problems

    def set_problems(self, frames: Set[str], values: Set[int]) -> list[str]:
        """List the faults of the frames, and of the values of all pictures together."""
        if self.sizes is None:
            return self.official_problems(frames)
        return name_all("missing", self.sizes.keys() - frames) + name_all(
            "not in the test set", frames - self.sizes.keys()
        )

    def official_problems(self, frames: Set[str]) -> list[str]:
        """Check the frames against the official test set, as far as their names are known."""
        raise NotImplementedError


class Cityscapes(Benchmark):
    """Label-id PNGs named ``CITY_SEQUENCE_FRAME*.png``, in any folders of a zip."""

    example = "berlin_000000_000019.png"

    def frame(self, member: str) -> str | None:
        """Take the first three parts of a PNG's name, as the official scorer does."""
        match = re.fullmatch(r"(?:(?!\.\./)[^/]+/)*([a-z-]+_\d{6}_\d{6})[^/]*\.png", member)
        return match and match[1]

    def legal(self) -> Collection[int]:
        """List the label ids."""
        return label_values(self.dataset)

    def expected_hw(self, frame: str) -> tuple[int, int] | None:
        """All official images are of one size."""
        return CITYSCAPES_HW if self.sizes is None else self.sizes.get(frame)

    def set_problems(self, frames: Set[str], values: Set[int]) -> list[str]:
        """Also detect train ids, which the server would score without a message."""
        train_ids = set(range(self.dataset.num_classes))
        classes = {row.id for row in self.dataset.train_classes}
        problems = super().set_problems(frames, values)
        if values <= train_ids | {self.dataset.ignore_id} and values - classes:
            found = ranges(np.array(sorted(values)))
            problems.append(f"all values are {found}: train ids instead of label ids?")
        return problems

    def official_problems(self, frames: Set[str]) -> list[str]:
        """Count the frames of each city."""
        cities = Counter(frame.split("_")[0] for frame in frames)
        return [
            f"{city}: {cities[city]} frames, the test set has {CITYSCAPES_TEST.get(city, 0)}"
            for city in sorted(cities.keys() | CITYSCAPES_TEST.keys())
            if cities[city] != CITYSCAPES_TEST.get(city, 0)
        ]


class Kitti(Benchmark):
    """Confidences for road, 0..255, in bird's-eye view; in the root of a zip.

    ``um_lane`` is a separate task: all of its frames are there, or none.
    """

    example = "um_road_000000.png"

    def __init__(self, dataset: DatasetSpec, sizes: Mapping[str, tuple[int, int]] | None = None):
        frames = sizes or [
            f"{c}_{number:06d}" for c, n in KITTI_TEST.items() for number in range(n)
        ]
        super().__init__(dataset, dict.fromkeys(frames, BEV_HW))

    def expected_hw(self, frame: str) -> tuple[int, int]:
        """The view from above is of one size."""
        return BEV_HW

    def frame(self, member: str) -> str | None:
        """Take the name of a PNG in the root."""
        match = re.fullmatch(r"((?:um_lane|um_road|umm_road|uu_road)_\d{6})\.png", member)
        return match and match[1]

    def set_problems(self, frames: Set[str], values: Set[int]) -> list[str]:
        """Also detect train ids, which would be almost no confidence."""
        lanes = any(frame.startswith("um_lane") for frame in frames)
        expected = {name for name in self.sizes or () if lanes or not name.startswith("um_lane")}
        problems = name_all("missing", expected - frames)
        problems += name_all("not in the test set", frames - expected)
        if values <= {0, 1} and 1 in values:
            problems.append("all values are 0 or 1: train ids instead of confidences 0..255?")
        return problems


class Voc(Benchmark):
    """Palette PNGs with the VOC colour map, ``results/VOC2012/Segmentation/COMP_test_cls/ID.png``.

    ``competition`` is ``comp6``, or ``comp5`` for methods trained on VOC data alone.
    """

    archive = ".tar"
    mode, mode_name = "P", "a palette"

    def __init__(
        self,
        dataset: DatasetSpec,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        competition: str = "comp6",
    ):
        super().__init__(dataset, sizes)
        self.folder = f"results/VOC2012/Segmentation/{competition}_test_cls"
        self.example = self.member("2008_000006")

    def member(self, frame: str) -> str:
        """Put the picture into the competition's folder."""
        return f"{self.folder}/{frame}.png"

    def frame(self, member: str) -> str | None:
        """Take the name of a PNG in the competition's folder."""
        match = re.fullmatch(re.escape(self.folder) + r"/([^/]+)\.png", member)
        return match and match[1]

    def encode(self, picture: np.ndarray) -> bytes:
        """Encode with the colour map."""
        image = Image.fromarray(picture)
        image.putpalette(self.dataset.palette.tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def legal(self) -> Collection[int]:
        """List the classes; 255, the border, is not a prediction."""
        return range(self.dataset.num_classes)

    def picture_problems(self, frame: str, image: Image.Image, values: np.ndarray) -> list[str]:
        """Also compare the colours of the classes that occur."""
        problems = super().picture_problems(frame, image, values)
        if image.mode == "P":
            count = self.dataset.num_classes
            found = np.zeros((256, 3), np.uint8)
            palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
            found[: len(palette)] = palette
            if (found[:count] != self.dataset.palette[:count])[values[values < count]].any():
                problems.append("its palette is not the VOC colour map")
        return problems

    def official_problems(self, frames: Set[str]) -> list[str]:
        """Count the pictures; of their names only the pattern is known."""
        odd = {frame for frame in frames if not re.fullmatch(r"\d{4}_\d{6}", frame)}
        problems = name_all("no names of VOC2012 images", odd)
        if len(frames) != VOC_TEST:
            problems.append(f"{len(frames)} pictures, the test set has {VOC_TEST}")
        return problems


BENCHMARKS = {"cityscapes": Cityscapes, "kitti": Kitti, "voc": Voc}


def name_all(what: str, frames: Collection[str], shown: int = 20) -> list[str]:
    """One line that names frames; empty without frames."""
    if not frames:
        return []
    more = f" and {len(frames) - shown} more" if len(frames) > shown else ""
    return [f"{what}: {', '.join(sorted(frames)[:shown])}{more}"]
