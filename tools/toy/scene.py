"""A generated street: its objects, their places, and the weather (see :mod:`tools.toy.canvas`)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from tools.toy.canvas import (
    BUILDING,
    EGO,
    FAR,
    HAZE,
    LANE,
    NEAR,
    ROAD,
    SIDEWALK,
    SIDEWALK_WIDTH,
    SKY,
    SUPERSAMPLE,
    TERRAIN,
    VEGETATION,
    Camera,
    Canvas,
    Street,
    rectangle,
)
from tools.toy.things import WHITE, bus, car, light, person, pole, sign, tree

# Strength of the texture within each class, as a share of the brightness.
TEXTURE = {
    ROAD: 0.06,
    SIDEWALK: 0.07,
    BUILDING: 0.09,
    VEGETATION: 0.3,
    TERRAIN: 0.2,
    SKY: 0.02,
}

WALLS = np.array(
    [(170, 140, 110), (150, 85, 65), (190, 185, 170), (120, 120, 125), (205, 180, 130)]
)


class Drawing(NamedTuple):
    """One drawn street.

    ``image`` (H, W, 3) uint8 RGB; ``ids`` (H, W) int32 in Cityscapes' instance encoding (label id,
    or label id * 1000 + k); ``ego_lane`` and ``kerb`` (H, W) bool, visible ground of the camera's
    lane and of the kerb stones.
    """

    image: np.ndarray
    ids: np.ndarray
    ego_lane: np.ndarray
    kerb: np.ndarray

    @property
    def label_ids(self) -> np.ndarray:
        """(H, W) uint8 official label ids."""
        return np.where(self.ids >= 1000, self.ids // 1000, self.ids).astype(np.uint8)


def draw_street(
    camera: Camera, street: Street, rng: np.random.Generator, bonnet: bool = False
) -> Drawing:
    """Draw ``street`` with random traffic and weather; ``bonnet`` adds the ego vehicle's bonnet."""
    canvas = Canvas(camera, street, rng)
    ego_lane, kerb = ground(canvas)
    horizon(canvas)
    for side in (-1, 1):
        buildings(canvas, side)
    crowd = list(furniture(canvas)) + list(traffic(canvas)) + list(pedestrians(canvas))
    for z, draw in sorted(crowd, key=lambda thing: -thing[0]):
        draw(canvas, z)
    if bonnet:
        height, width = canvas.camera.hw
        ellipse = (
            (width // 2, int(height * 1.02)),
            (int(width * 0.42), int(height * 0.07)),
        )
        for array, colour in ((canvas.image, (38, 40, 44)), (canvas.ids, EGO)):
            cv2.ellipse(array, *ellipse, 0, 0, 360, colour, -1)
    centre = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
    ids = canvas.ids[centre, centre]
    image = cv2.resize(canvas.image, ids.shape[::-1], interpolation=cv2.INTER_AREA)
    on_ground = np.isin(ids, (ROAD, SIDEWALK))
    return Drawing(
        weather(image, ids, rng),
        ids,
        ego_lane[centre, centre] & on_ground,
        kerb[centre, centre] & on_ground,
    )


# --- surfaces ---


def ground(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Road with its markings, sidewalks, grass and shadows; returns the ego lane and kerb masks."""
    street, rng = canvas.street, canvas.rng
    x, z = canvas.camera.ground()
    near = z < FAR * 3
    z = np.where(near, z, FAR * 3)
    across = x - street.bend * z * z
    on_road = near & (street.left < across) & (across < street.right)
    beside = np.maximum(street.left - across, across - street.right)
    walk = near & ~on_road & (beside < SIDEWALK_WIDTH)
    kerb = near & (np.abs(beside) < 0.12)

    grey = rng.uniform(70, 115)
    colour = np.empty((*z.shape, 3), np.float32)
    colour[:] = canvas.sky
    colour[near] = rng.uniform((70, 80, 45), (110, 120, 70))
    colour[walk] = grey + rng.uniform(25, 60) + rng.uniform(-8, 8, 3)
    slabs = walk & ((np.mod(z, 1.2) < 0.06) | (np.mod(across, 1.2) < 0.05))
    colour[slabs] *= 0.85
    colour[on_road] = grey + rng.uniform(-5, 5, 3)
    colour[kerb] = grey + 75
    for mask in markings(street, rng, across, z):
        colour[on_road & mask] = WHITE * 0.92
    grain = np.random.default_rng(rng.integers(2**32)).normal(1, 0.05, (256, 256))
    colour *= grain[(z * 8).astype(int) % 256, (across * 8).astype(int) % 256][..., None]
    if rng.random() < 0.6:  # buildings on one side keep the sun out, up to a line along the street
        line = rng.uniform(street.left, street.right)
        colour[(across < line) == (rng.random() < 0.5)] *= 0.65
    clear = np.exp(-z / HAZE)[..., None]
    canvas.image[:] = np.clip(clear * colour + (1 - clear) * canvas.sky, 0, 255)
    canvas.ids[near], canvas.ids[walk], canvas.ids[on_road] = TERRAIN, SIDEWALK, ROAD
    rows = np.linspace(0.75, 1.05, len(z))[:, None, None]
    canvas.image[:] = np.where(near[..., None], canvas.image, np.clip(canvas.sky * rows, 0, 255))
    return on_road & (np.abs(across) < LANE / 2), kerb


def markings(street: Street, rng: np.random.Generator, across: np.ndarray, z: np.ndarray):
    """Masks of the paint on the road: lane lines, and in some streets a zebra crossing."""
    if street.marked:
        for lane in range(street.lanes + 1):
            line = np.abs(across - (lane - street.ego_lane - 0.5) * LANE) < 0.08
            edge = lane in (0, street.lanes)
            yield line & (edge | (np.mod(z, 7.0) < 3.5))
    if rng.random() < 0.4:
        start = rng.uniform(9, 25)
        yield (start < z) & (z < start + 3) & (np.mod(across, 1.0) < 0.5)


def horizon(canvas: Canvas) -> None:
    """A distant line of trees and roofs that closes the street."""
    rng = canvas.rng
    for x in np.arange(-140, 140, 14.0):
        label = VEGETATION if rng.random() < 0.6 else BUILDING
        colour = (
            rng.uniform((50, 75, 40), (90, 110, 60))
            if label == VEGETATION
            else WALLS[rng.integers(len(WALLS))]
        )
        outline = rectangle(-9, 9, -1, rng.uniform(5, 13))
        canvas.facing(x, FAR + rng.uniform(0, 30), outline, colour, label)


def buildings(canvas: Canvas, side: int) -> None:
    """A row of houses with gaps along one side.

    Each house has a wall along the street and a wall that faces the camera.
    """
    rng, street = canvas.rng, canvas.street
    setback = SIDEWALK_WIDTH + rng.choice([0.0, rng.uniform(1, 5)])
    across = street.right + setback if side > 0 else street.left - setback
    plots, z = [], NEAR
    while z < FAR:
        end = z + rng.uniform(9, 24)
        if rng.random() < 0.85:
            plots.append((z, min(end, FAR)))
        z = end + (rng.uniform(2, 8) if rng.random() < 0.4 else 0)
    for z0, z1 in reversed(plots):
        wall = WALLS[rng.integers(len(WALLS))] * rng.uniform(0.75, 1.1)
        storeys = int(rng.integers(2, 6))
        height, lit = storeys * 3.2 + 0.6, rng.uniform(0.6, 1.0)
        a, b = street.at(across, z0), street.at(across, z1)
        front = [
            (a, 0, z0),
            (a + side * 25, 0, z0),
            (a + side * 25, -height, z0),
            (a, -height, z0),
        ]
        canvas.polygon(front, wall * 0.8, BUILDING)
        canvas.polygon(
            [(a, 0, z0), (b, 0, z1), (b, -height, z1), (a, -height, z0)],
            wall * lit,
            BUILDING,
        )
        glass = np.array((0.75, 0.9, 1.1)) * rng.uniform(50, 130)
        windows = np.arange(0.8, z1 - z0 - 1.4, rng.uniform(2.2, 3.2))
        for offset in windows if z0 < 60 else []:
            ends = (offset, offset + 1.2)
            near, far = ((street.at(across, z0 + end), z0 + end) for end in ends)
            for up in np.arange(1.0, height - 2, 3.2):
                rise = ((near, up), (far, up), (far, up + 1.5), (near, up + 1.5))
                canvas.polygon([(x, -level, z) for (x, z), level in rise], glass)


# --- placement: each gives (distance, function that draws there) ---


def furniture(canvas: Canvas):
    """Trees, bare poles, signs and lights along both kerbs."""
    rng, street = canvas.rng, canvas.street
    kinds, weights = (tree, pole, sign, light), rng.dirichlet((4, 3, 4, 2.5))
    for side in (-1, 1):
        z = rng.uniform(5, 10)
        while z < 85:
            kind = kinds[rng.choice(4, p=weights)]
            off = rng.uniform(1.2, 3.2) if kind is tree else rng.uniform(0.3, 0.8)
            across = street.right + off if side > 0 else street.left - off
            yield z, place(kind, across)
            z += rng.uniform(4, 12)


def traffic(canvas: Canvas):
    """Cars and buses in the lanes, and cars parked on the strips beside them."""
    rng, street = canvas.rng, canvas.street
    for lane in range(street.lanes):
        z = rng.uniform(9, 40) if lane == street.ego_lane else rng.uniform(5, 30)
        while z < 95:
            yield (
                z,
                place(bus if rng.random() < 0.1 else car, (lane - street.ego_lane) * LANE),
            )
            z += rng.uniform(12, 45)
    for across in (street.left + street.kerb / 2, street.right - street.kerb / 2):
        z = rng.uniform(4, 20)
        while street.kerb > 1.8 and z < 70:
            if rng.random() < 0.7:
                yield z, place(car, across)
            z += rng.uniform(5.5, 7)


def pedestrians(canvas: Canvas):
    """People on the sidewalks, a few crossing."""
    rng, street = canvas.rng, canvas.street
    for _ in range(int(rng.integers(4, 13))):
        z = rng.uniform(5, 12) if rng.random() < 0.3 else rng.uniform(8, 60)
        off = rng.uniform(0.6, SIDEWALK_WIDTH - 0.3)
        across = street.right + off if rng.random() < 0.5 else street.left - off
        if rng.random() < 0.2:
            across = rng.uniform(street.left, street.right)
        yield z, place(person, across)


def place(kind, across: float):
    """A drawing function of the distance alone."""
    return lambda canvas, z: kind(canvas, canvas.street.at(across, z), z)


def weather(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texture of each class, light of the day, blur and sensor noise; (H, W, 3) uint8 RGB."""
    labels = np.where(ids >= 1000, ids // 1000, ids)
    strength = np.full(ids.shape, 0.04, np.float32)
    for label, share in TEXTURE.items():
        strength[labels == label] = share
    texture = np.zeros(ids.shape, np.float32)
    for octave in (2, 4, 12):
        coarse = rng.normal(0, 1, (-(-ids.shape[0] // octave), -(-ids.shape[1] // octave)))
        texture += cv2.resize(coarse.astype(np.float32), ids.shape[::-1]) * 0.6
    lit = image * (1 + strength * texture)[..., None]
    if rng.random() < 0.5:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.3, 0.7))
    gain, warm = rng.uniform(0.55, 1.15), rng.uniform(-0.08, 0.08)
    lit = 255 * (lit.clip(0, 255) / 255) ** rng.uniform(0.85, 1.2)
    lit = lit * gain * np.array([1 + warm, 1, 1 - warm]) + rng.normal(
        0, rng.uniform(1.5, 6), image.shape
    )
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)
