"""Mean, spread and paired differences over seeds, with 95% confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 2000


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1); None for one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def t_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Interval of the mean of paired differences over seeds (Student's t); None below two seeds."""
    count = len(differences)
    if count < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(differences, ddof=1) / np.sqrt(count)
    mean = float(np.mean(differences))
    return mean - float(half), mean + float(half)


def bootstrap_interval(
    first: np.ndarray, second: np.ndarray, draws: int = DRAWS
) -> tuple[float, float]:
    """Interval of the difference of mean IoU, ``second - first``, over seeds and frames.

    Each draw takes seeds and groups of neighbouring frames with replacement, the same ones for
    both rows. The interval is given by percentiles of the draws.

    Parameters
    ----------
    first, second : ndarray
        (seeds, groups, classes, 3): true positives, false positives, false negatives.
    """
    random = np.random.default_rng(0)
    seeds, groups = first.shape[:2]
    found = []
    for _ in range(draws):
        chosen = random.integers(0, seeds, seeds)
        weights = np.bincount(random.integers(0, groups, groups), minlength=groups)
        a, b = (np.einsum("g,sgck->sck", weights, rows[chosen]) for rows in (first, second))
        found.append(np.mean(mean_ious(b) - mean_ious(a)))
    low, high = np.percentile(found, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def mean_ious(counts: np.ndarray) -> np.ndarray:
    """(seeds,) mean IoU of (seeds, classes, 3) counts, over the classes that occur."""
    occur = counts.sum(axis=2) > 0
    ious = counts[..., 0] / np.maximum(counts.sum(axis=2), 1)
    return (ious * occur).sum(axis=1) / occur.sum(axis=1)
