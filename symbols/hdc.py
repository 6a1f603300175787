"""Hybrid dilated convolution: dilation schedules and the arithmetic behind them (section 3.2).

A schedule gives every 3x3 convolution of res4 and res5 (one per bottleneck, two per basic block)
its dilation rate, for features at 1/8 of the input. Rates are listed in the order of the forward
pass, r_1 nearest the input. Plain Python and NumPy; the graph itself is built in
:mod:`symbols.resnet`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import numpy as np

from .errors import NetworkError, one_of

Rates = tuple[int, ...]
LARGEST = 32768  # far more than any image is wide; beyond 2**31 MXNet builds no graph


def sawtooth(group: Sequence[int], units: int) -> Rates:
    """Repeat ``group`` over ``units`` blocks; an incomplete last group has its first rates."""
    return tuple(islice(cycle(group), units))


def no_dilation(res4: int, res5: int) -> tuple[Rates, Rates]:
    """Every rate 1 (section 4.1.3, item 1)."""
    return (1,) * res4, (1,) * res5


def plain(res4: int, res5: int) -> tuple[Rates, Rates]:
    """2 in res4 and 4 in res5: the DeepLab-V2 baseline and ResNet-DUC (section 4.1.1)."""
    return (2,) * res4, (4,) * res5


def dilation_conv(res4: int, res5: int) -> tuple[Rates, Rates]:
    """Groups of two blocks, 2 then 1, restarted in res5 (section 4.1.3, item 2).

    This is the text's rule. Keeping res5's own rate 4 in place of 2 there ("2,1; 4,1") gives the
    increase of 88 that Table 2 prints, where the text's rates give 80.
    """
    return sawtooth((2, 1), res4), sawtooth((2, 1), res5)


def dilation_rf(res4: int, res5: int) -> tuple[Rates, Rates]:
    """Groups of three blocks, 1 2 3 in res4 and 3 4 5 in res5 (section 4.1.3, item 3).

    Remaining blocks keep the stage's plain rate, 2 or 4, so the receptive field equals that of the
    plain schedule at every depth.
    """

    def groups_around(rate: int, units: int) -> Rates:
        whole = units - units % 3
        return sawtooth((rate - 1, rate, rate + 1), whole) + (rate,) * (units - whole)

    return groups_around(2, res4), groups_around(4, res5)


def dilation_bigger(res4: int, res5: int) -> tuple[Rates, Rates]:
    """Groups of four blocks, 1 2 5 9, in res4 and 5 9 17 in res5 (section 4.1.3, item 4)."""
    return sawtooth((1, 2, 5, 9), res4), sawtooth((5, 9, 17), res5)


def release(res4: int, res5: int) -> tuple[Rates, Rates]:
    """Dilation-bigger of the authors' released network: its res4 begins with 2, not 1."""
    bigger4, bigger5 = dilation_bigger(res4, res5)
    return (2, *bigger4[1:]), bigger5


SCHEDULES: dict[str, Callable[[int, int], tuple[Rates, Rates]]] = {
    "none": no_dilation,
    "plain": plain,
    "conv": dilation_conv,
    "rf": dilation_rf,
    "bigger": dilation_bigger,
    "release": release,
}

# "RF increased" as Table 2 prints it for ResNet-101; only Dilation-RF equals table2_increase().
PRINTED_INCREASE = {"none": 54, "conv": 88, "rf": 116, "bigger": 256}


def schedule(dilation: str, convolutions: Sequence[int]) -> tuple[Rates, Rates]:
    """Dilation rates of the 3x3 convolutions of res4 and res5.

    Parameters
    ----------
    dilation : str
        A name in :data:`SCHEDULES`, or rates as in ``"1,2,5,9; 5,9,17"``: res4's list, then
        res5's, each repeated over the stage's blocks.
    convolutions : sequence of 4 int
        3x3 convolutions of res2, res3, res4 and res5: (3, 4, 23, 3) for ResNet-101.

    Returns
    -------
    tuple of two tuples of int
        ``convolutions[2]`` and ``convolutions[3]`` rates, from 1 to :data:`LARGEST`.

    Raises
    ------
    NetworkError
        ``dilation`` is neither of these.
    """
    _, _, res4, res5 = convolutions
    if dilation in SCHEDULES:
        return SCHEDULES[dilation](res4, res5)
    stages = [[rate.strip() for rate in stage.split(",")] for stage in dilation.split(";")]
    rates = [rate for stage in stages for rate in stage]
    if len(stages) == 2 and all(r.isdecimal() and 1 <= int(r) <= LARGEST for r in rates):
        group4, group5 = ([int(rate) for rate in stage] for stage in stages)
        return sawtooth(group4, res4), sawtooth(group5, res5)
    raise NetworkError(
        "dilation",
        dilation,
        f"{one_of(dilation, SCHEDULES)}, "
        f"or the rates of res4; res5, each at least 1 and at most {LARGEST}, such as "
        "'1,2,5,9; 5,9,17'",
    )


def max_distance(rates: Sequence[int]) -> list[int]:
    """``[M_1, ..., M_n]`` of equation (2): the maximum distance between two nonzero values.

    M_i = max(M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i) with M_n = r_n. The paper defines
    it for one rising group of rates. Across groups it overestimates; :func:`coverage` is exact.
    """
    distances = [rates[-1]]
    for rate in reversed(rates[:-1]):
        above = distances[0]
        distances.insert(0, max(above - 2 * rate, above - 2 * (above - rate), rate))
    return distances


def satisfies_hdc(rates: Sequence[int], kernel: int = 3) -> bool:
    """Whether M_2 <= K, the design goal of section 3.2; a single layer is judged by M_1.

    The goal assumes a group that begins with rate 1: (2, 2, 2) meets it and still has holes.
    """
    return max_distance(rates)[:2][-1] <= kernel


def receptive_field(rates: Sequence[int], kernel: int = 3) -> int:
    """Side of the receptive field of stacked dilated convolutions, in pixels of their input."""
    return 1 + (kernel - 1) * sum(rates)


def table2_increase(res4: Sequence[int], res5: Sequence[int]) -> int:
    """Receptive field's growth along one dimension, in feature pixels: Table 2's "RF increased"."""
    return receptive_field((*res4, *res5)) - 1


def coverage(rates: Sequence[int], kernel: int = 3) -> np.ndarray:
    """Input pixels that contribute to the centre pixel through stacked dilated convolutions.

    Parameters
    ----------
    rates : sequence of int
        Dilation rates r_1 ... r_n.
    kernel : int
        Odd side K of every convolution.

    Returns
    -------
    ndarray of bool, (R, R)
        R = :func:`receptive_field`; rows y, columns x, the output pixel at the centre (Figure 2).
    """
    # A pixel contributes when its offset is a sum of one tap per layer; y and x are independent.
    line = np.ones(1, bool)
    for rate in rates:
        taps = [np.pad(line, (t * rate, (kernel - 1 - t) * rate)) for t in range(kernel)]
        line = np.logical_or.reduce(taps)
    return np.logical_and.outer(line, line)


def sampled_share(rates: Sequence[int], kernel: int = 3) -> float:
    """Share, 0..1, of the receptive field's pixels that contribute (gridding: below 1)."""
    return float(coverage(rates, kernel).mean())
