"""The canvas of the generated streets: a flat world in metres, painted through a camera matrix.

World axes are those of KITTI's road plane: x right, y down with the ground at 0, z forward. All
objects are placed in that world and projected, so distant ones are small, and a calibration file
made from the matrix agrees with the image. Labels are Cityscapes' official ids in its instance
encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

# Official Cityscapes ids (cityscapesscripts helpers/labels.py); PERSON, CAR and BUS have instances.
EGO, ROAD, SIDEWALK, BUILDING, POLE, LIGHT, SIGN = 1, 7, 8, 11, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, CAR, BUS = 21, 22, 23, 24, 26, 28

LANE = 3.2  # metres
SIDEWALK_WIDTH = 2.6
GROUP_PIXELS = 5  # height; lower objects belong to a group: their id has no instance number
SUPERSAMPLE = 3  # odd, so that one sample lies at the pixel's centre, where the label is taken
NEAR = 1.5  # metres; nothing is drawn nearer to the camera
FAR = 130.0
HAZE = 260.0  # metres at which 1 - 1/e of a colour is lost to the sky


class Camera(NamedTuple):
    """A pinhole camera: ``matrix`` (3, 4) takes world points to pixels of an image of ``hw``."""

    matrix: np.ndarray
    hw: tuple[int, int]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) as x, y of world points (N, 3); pixel centres are whole numbers."""
        x, y, depth = self.matrix @ np.column_stack([points, np.ones(len(points))]).T
        return np.column_stack([x / depth, y / depth])

    def ground(self) -> tuple[np.ndarray, np.ndarray]:
        """World x and z (H, W) of the ground under each pixel; z is infinite above the horizon."""
        columns, rows = np.meshgrid(np.arange(self.hw[1]), np.arange(self.hw[0]))
        pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
        x, z, w = np.linalg.inv(self.matrix[:, [0, 2, 3]]) @ pixels
        below = (w != 0) & (z / np.where(w == 0, 1, w) > 0)
        w = np.where(below, w, 1)
        x, z = np.where(below, x / w, 0), np.where(below, z / w, np.inf)
        return x.reshape(self.hw), z.reshape(self.hw)

    def enlarged(self, factor: int) -> Camera:
        """Return the same view with ``factor`` times as many rows and columns."""
        grow = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
        return Camera(grow @ self.matrix, (self.hw[0] * factor, self.hw[1] * factor))


@dataclass(frozen=True)
class Street:
    """The plan of one street; the camera stands at x = 0 in the middle of lane ``ego_lane``."""

    lanes: int
    marked: bool
    ego_lane: int  # counted from the left
    bend: float  # the street's middle lies at x + bend * z**2
    kerb: float  # metres of parking strip beside the outer lanes

    @property
    def left(self) -> float:
        """Road's left edge."""
        return -(self.ego_lane + 0.5) * LANE - self.kerb

    @property
    def right(self) -> float:
        """Road's right edge."""
        return (self.lanes - self.ego_lane - 0.5) * LANE + self.kerb

    def at(self, across: float, z: float) -> float:
        """World x of the point ``across`` metres right of the camera's lane at distance z."""
        return across + self.bend * z * z


class Canvas:
    """Paints world polygons on an image and its ids, at ``SUPERSAMPLE`` times the frame's size."""

    def __init__(self, camera: Camera, street: Street, rng: np.random.Generator):
        self.camera, self.street, self.rng = camera.enlarged(SUPERSAMPLE), street, rng
        self.image = np.zeros((*self.camera.hw, 3), np.uint8)
        self.ids = np.full(self.camera.hw, SKY, np.int32)
        overcast = rng.uniform(0, 1)
        self.sky = (1 - overcast) * np.array([110, 160, 220]) + overcast * np.array([205, 208, 212])
        self.instances: dict[int, int] = {}

    def hazy(self, colour: np.ndarray, z: float) -> np.ndarray:
        """``colour`` seen through ``z`` metres of air."""
        clear = np.exp(-z / HAZE)
        return np.clip(clear * np.asarray(colour) + (1 - clear) * self.sky, 0, 255)

    def polygon(self, points: np.ndarray, colour: np.ndarray, ids: int | None = None) -> None:
        """Fill a polygon of world points (N, 3); without ``ids`` the labels below it stay."""
        points = np.asarray(points, float)
        pixels = np.round(np.clip(self.camera.project(points), -1e4, 1e4)).astype(np.int32)
        cv2.fillPoly(self.image, [pixels], self.hazy(colour, points[:, 2].mean()).tolist())
        if ids is not None:
            cv2.fillPoly(self.ids, [pixels], ids)

    def facing(
        self,
        x: float,
        z: float,
        outline: list,
        colour: np.ndarray,
        ids: int | None = None,
    ) -> None:
        """Fill a shape that faces the camera at (x, z): points (metres right, metres up)."""
        self.polygon([(x + right, -up, z) for right, up in outline], colour, ids)

    def box(
        self, x: float, z: tuple, width: tuple, up: tuple, colour: np.ndarray, ids: int
    ) -> None:
        """Fill a vehicle-like box: its near face, and the side that the camera sees.

        ``z`` is its near and far end, ``width`` that of bottom and top, ``up`` their height.
        """
        side = -np.sign(x) or 1
        corners = [
            (x + side * w / 2, -h, d)
            for d, w, h in (
                (z[0], width[0], up[0]),
                (z[1], width[0], up[0]),
                (z[1], width[1], up[1]),
                (z[0], width[1], up[1]),
            )
        ]
        self.polygon(corners, np.multiply(colour, 0.75), ids)
        near = [
            (-width[0] / 2, up[0]),
            (width[0] / 2, up[0]),
            (width[1] / 2, up[1]),
            (-width[1] / 2, up[1]),
        ]
        self.facing(x, z[0], near, colour, ids)

    def instance(self, label: int, height: float, z: float) -> int:
        """Next id * 1000 + k of an instance class, or the plain id where it is too small."""
        top, bottom = self.camera.project(np.array([(0, -height, z), (0, 0, z)]))[:, 1]
        if bottom - top < GROUP_PIXELS * SUPERSAMPLE:
            return label
        self.instances[label] = self.instances.get(label, -1) + 1
        return label * 1000 + self.instances[label]


def disc(radius: float, up: float, right: float = 0.0, corners: int = 14) -> list:
    """Outline of a regular polygon, its centre ``up`` metres above the ground."""
    turns = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    return [(right + radius * np.sin(t), up + radius * np.cos(t)) for t in turns]


def rectangle(left: float, right: float, bottom: float, top: float) -> list:
    """Outline of a rectangle in metres right and up."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]
