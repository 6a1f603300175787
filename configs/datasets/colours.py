"""Choose colours for classes without one: far from each other and from black and white."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Colour = tuple[int, int, int]
STEPS = (0, 51, 102, 153, 204, 255)
KEPT = ((0, 0, 0), (255, 255, 255))  # ignored pixels are black in pictures


def choose(count: int, taken: Sequence[Colour] = ()) -> list[Colour]:
    """Choose ``count`` RGB colours, 0..255, each as far as possible from those before it.

    The distance is Riemersma's ("redmean"), which follows the eye better than Euclid's.
    """
    grid: list[Colour] = list(itertools.product(STEPS, STEPS, STEPS))
    chosen: list[Colour] = []
    nearest = {color: min(distance(color, other) for other in (*KEPT, *taken)) for color in grid}
    for _ in range(count):
        best = max(grid, key=lambda color: nearest[color])
        chosen.append(best)
        nearest = {color: min(far, distance(color, best)) for color, far in nearest.items()}
    return chosen


def distance(first: Colour, second: Colour) -> float:
    """Squared redmean distance of two RGB colours."""
    red = (first[0] + second[0]) / 2
    dr, dg, db = (a - b for a, b in zip(first, second))
    return (2 + red / 256) * dr * dr + 4 * dg * dg + (2 + (255 - red) / 256) * db * db
