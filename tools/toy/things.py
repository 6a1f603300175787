"""The objects of a generated street; each is drawn at its place (x, z) in metres."""

from __future__ import annotations

import numpy as np

from tools.toy.canvas import (
    BUS,
    CAR,
    LIGHT,
    PERSON,
    POLE,
    SIGN,
    VEGETATION,
    Canvas,
    disc,
    rectangle,
)

PAINTS = np.array([(178, 30, 32), (30, 60, 120), (225, 225, 222), (40, 42, 46), (140, 145, 150),
                   (60, 90, 60), (190, 150, 60), (95, 25, 40)])  # fmt: skip
CLOTHES = np.array([(40, 40, 60), (160, 40, 50), (30, 90, 130), (200, 190, 160), (70, 110, 60),
                    (220, 120, 40)])  # fmt: skip
DARK, METAL, WHITE = (
    np.array([28, 32, 38]),
    np.array([118, 120, 122]),
    np.array([232, 232, 228]),
)


def car(canvas: Canvas, x: float, z: float) -> None:
    """A car seen from behind or ahead: shadow, wheels, body, cabin, glass, lamps, plate."""
    rng, ids = canvas.rng, canvas.instance(CAR, 1.45, z)
    paint = PAINTS[rng.integers(len(PAINTS))] * rng.uniform(0.7, 1.15)
    vehicle(
        canvas,
        x,
        z,
        ids,
        paint,
        width=1.78,
        length=4.2,
        waist=0.85,
        roof=rng.uniform(1.4, 1.65),
    )


def bus(canvas: Canvas, x: float, z: float) -> None:
    """A bus: the same shape, larger."""
    rng, ids = canvas.rng, canvas.instance(BUS, 3.1, z)
    paint = np.array(((200, 160, 40), (190, 60, 50), (220, 220, 220))[rng.integers(3)], float)
    vehicle(canvas, x, z, ids, paint, width=2.5, length=10.5, waist=1.5, roof=3.1)


def vehicle(canvas: Canvas, x, z, ids, paint, width, length, waist, roof) -> None:
    """Body and cabin as boxes, with the fittings painted on."""
    half, front = width / 2, canvas.rng.random() < 0.4
    shade = [
        (x + sx * (half + 0.15), 0, z + dz)
        for sx, dz in ((-1, -0.2), (1, -0.2), (1, length), (-1, length))
    ]
    canvas.polygon(shade, DARK)
    for right in (-half + 0.15, half - 0.15):
        canvas.facing(x, z, rectangle(right - 0.12, right + 0.12, 0, 0.4), DARK * 0.7, ids)
    slope = 0.25 * (length < 6)
    cabin = (width * 0.96, width * (0.96 - slope))
    canvas.box(x, (z + 0.4, z + length * 0.75), cabin, (waist - 0.2, roof), paint, ids)
    inset, top = width * 0.42, width * (0.42 - slope / 2)
    glass = [
        (-inset, waist + 0.05),
        (inset, waist + 0.05),
        (top, roof - 0.1),
        (-top, roof - 0.1),
    ]
    canvas.facing(x, z + 0.39, glass, DARK * 1.6)
    canvas.box(x, (z, z + length), (width, width), (0.28, waist), paint * 0.95, ids)
    lamp = np.array((235, 230, 205) if front else (190, 25, 25))
    for right in (-half + 0.2, half - 0.2):
        canvas.facing(x, z, rectangle(right - 0.16, right + 0.16, waist - 0.25, waist - 0.1), lamp)
    canvas.facing(x, z, rectangle(-0.25, 0.25, 0.42, 0.54), WHITE)


def person(canvas: Canvas, x: float, z: float) -> None:
    """A standing or walking person."""
    rng = canvas.rng
    size = rng.uniform(1.1, 1.9)
    ids, step = canvas.instance(PERSON, size, z), rng.uniform(0.03, 0.16)
    trousers, coat = (CLOTHES[rng.integers(len(CLOTHES))] * rng.uniform(0.7, 1.1) for _ in range(2))
    for foot in (-step, step):
        leg = [(foot - 0.07, 0), (foot + 0.07, 0), (0.1, 0.5), (-0.1, 0.5)]
        canvas.facing(x, z, [(r * size / 1.75, u * size) for r, u in leg], trousers, ids)
    torso = [
        (-0.17, 0.46),
        (0.17, 0.46),
        (0.27, 0.62),
        (0.2, 0.83),
        (-0.2, 0.83),
        (-0.27, 0.62),
    ]
    canvas.facing(x, z, [(r * size / 1.75, u * size) for r, u in torso], coat, ids)
    skin = np.array((205, 160, 130)) * rng.uniform(0.5, 1.1)
    canvas.facing(x, z, disc(0.075 * size, 0.91 * size), skin, ids)
    canvas.facing(x, z, rectangle(-0.07 * size, 0.07 * size, 0.94 * size, size), DARK)


def tree(canvas: Canvas, x: float, z: float) -> None:
    """Trunk and crown of overlapping leaf clumps, lit from above."""
    rng = canvas.rng
    stem, crown = rng.uniform(1.6, 2.8), rng.uniform(1.1, 2.2)
    canvas.facing(
        x,
        z,
        rectangle(-0.14, 0.14, 0, stem + crown),
        np.array((75, 60, 48)),
        VEGETATION,
    )
    green = rng.uniform((45, 75, 30), (110, 130, 55))
    for _ in range(16):
        right, up = (
            rng.normal(0, crown * 0.45),
            stem + crown + rng.normal(0, crown * 0.4),
        )
        lit = 0.75 + 0.25 * np.clip((up - stem) / (2 * crown), 0, 1) + rng.uniform(-0.1, 0.1)
        canvas.facing(
            x,
            z,
            disc(crown * rng.uniform(0.3, 0.6), up, right),
            green * lit,
            VEGETATION,
        )


def pole(canvas: Canvas, x: float, z: float, height: float = 0.0) -> None:
    """A lamp post, or the post of a sign or light where ``height`` is given."""
    rng = canvas.rng
    radius = rng.uniform(0.06, 0.12)
    colour = METAL * rng.uniform(0.6, 1.1)
    arm = 0 if height else 1.4 * -np.sign(x)
    height = height or rng.uniform(5, 8)
    canvas.facing(x, z, rectangle(-radius, radius, 0, height), colour, POLE)
    if arm:
        canvas.facing(
            x,
            z,
            rectangle(min(0, arm), max(0, arm), height - 0.12, height),
            colour,
            POLE,
        )


def sign(canvas: Canvas, x: float, z: float) -> None:
    """A traffic sign: warning triangle, blue or red disc, yellow diamond, or a name board."""
    rng = canvas.rng
    up, kind = rng.uniform(2.2, 2.8), rng.integers(5)
    pole(canvas, x, z, up + 0.3)
    red, blue, yellow = (
        np.array((200, 30, 35)),
        np.array((30, 80, 170)),
        np.array((240, 195, 40)),
    )
    corners, rim, face = (
        (3, red, WHITE),
        (14, blue, blue),
        (14, red, WHITE),
        (4, WHITE, yellow),
        (0, WHITE, blue),
    )[kind]
    for size, colour, ids in ((1.0, rim, SIGN), (0.72, face, None)):
        board = rectangle(-0.65 * size, 0.65 * size, up - 0.3 * size, up + 0.3 * size)
        plate = disc(0.42 * size, up, corners=corners) if corners else board
        if corners in (3, 4):  # turn a corner to the top
            plate = [
                (0.5 * size * np.sin(t), up + 0.5 * size * np.cos(t))
                for t in 2 * np.pi * np.arange(corners) / corners
            ]
        canvas.facing(x, z, plate, colour, ids)


def light(canvas: Canvas, x: float, z: float) -> None:
    """A traffic light with one of its lamps on."""
    up, on = 2.5, canvas.rng.integers(3)
    pole(canvas, x, z, up)
    canvas.facing(x, z, rectangle(-0.24, 0.24, up, up + 1.1), DARK, LIGHT)
    lamps = ((240, 50, 40), (245, 190, 50), (60, 220, 110))
    for place_, colour in enumerate(lamps):
        glow = np.array(colour) * (1.0 if place_ == on else 0.25)
        canvas.facing(x, z, disc(0.14, up + 0.9 - 0.34 * place_), glow)
