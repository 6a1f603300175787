"""Dilation schedules and their arithmetic against the paper's own numbers and brute force."""

from itertools import product

import numpy as np
import pytest

from symbols import NetworkError, hdc

RESNET50 = (3, 4, 6, 3)
RESNET101 = (3, 4, 23, 3)
RESNET152 = (3, 8, 36, 3)


@pytest.mark.parametrize(
    "dilation, res4, res5",
    [
        ("none", [1] * 23, [1, 1, 1]),
        ("plain", [2] * 23, [4, 4, 4]),
        ("conv", [2, 1] * 11 + [2], [2, 1, 2]),
        ("rf", [1, 2, 3] * 7 + [2, 2], [3, 4, 5]),
        ("bigger", [1, 2, 5, 9] * 5 + [1, 2, 5], [5, 9, 17]),
        ("release", [2, 2, 5, 9] + [1, 2, 5, 9] * 4 + [1, 2, 5], [5, 9, 17]),
        ("1, 2,7 ;3", [1, 2, 7] * 7 + [1, 2], [3, 3, 3]),
        ("1,2,5,9; 5,9,17", [1, 2, 5, 9] * 5 + [1, 2, 5], [5, 9, 17]),
    ],
)
def test_resnet101_has_the_rates_of_section_4_1_3(dilation, res4, res5):
    assert hdc.schedule(dilation, RESNET101) == (tuple(res4), tuple(res5))


def test_other_depths_follow_the_same_rule():
    assert hdc.schedule("bigger", RESNET152) == ((1, 2, 5, 9) * 9, (5, 9, 17))
    assert hdc.schedule("rf", RESNET152) == ((1, 2, 3) * 12, (3, 4, 5))
    assert hdc.schedule("release", RESNET152) == ((2, 2, 5, 9) + (1, 2, 5, 9) * 8, (5, 9, 17))
    assert hdc.schedule("bigger", RESNET50) == ((1, 2, 5, 9, 1, 2), (5, 9, 17))
    assert hdc.schedule("rf", (2, 2, 4, 2)) == ((1, 2, 3, 2), (4, 4))


@pytest.mark.parametrize(
    "dilation, said",
    [
        ("biger", "did you mean bigger?"),
        ("1,2,5,9", "the rates of res4; res5"),
        ("1,2; 0", "each at least 1"),
        ("1,2; 32769", "at most 32768"),
        ("1,2; 3; 4", "expected one of none, plain"),
        ("1,,2; 3", "expected one of"),
        ("1,-2; 3", "expected one of"),
        ("1.5; 3", "expected one of"),
        ("", "expected one of"),
    ],
)
def test_nonsense_is_refused_by_name(dilation, said):
    with pytest.raises(NetworkError) as error:
        hdc.schedule(dilation, RESNET101)
    assert said in str(error.value) and repr(dilation) in str(error.value)


def test_equation_2_on_the_papers_examples():
    assert hdc.max_distance([1, 2, 5]) == [1, 2, 5]
    assert hdc.max_distance([1, 2, 9]) == [3, 5, 9]
    assert hdc.satisfies_hdc([1, 2, 5]) and not hdc.satisfies_hdc([1, 2, 9])
    assert hdc.satisfies_hdc([1, 2, 9], kernel=5)
    assert hdc.max_distance([4]) == [4] and not hdc.satisfies_hdc([4])


def test_table_2_receptive_field_increase():
    # 2 x the sum of the rates, added up by hand from section 4.1.3.
    by_hand = {"none": 52, "conv": 80, "rf": 116, "plain": 116, "bigger": 248}
    for name, increase in by_hand.items():
        assert hdc.table2_increase(*hdc.schedule(name, RESNET101)) == increase
    assert hdc.PRINTED_INCREASE["rf"] == by_hand["rf"]
    # Another reading of the text gives the printed 88 (docstring of dilation_conv).
    assert hdc.table2_increase(*hdc.schedule("2,1; 4,1", RESNET101)) == 88


@pytest.mark.parametrize(
    "rates, kernel", [((2, 2, 2), 3), ((1, 2, 3), 3), ((1, 2, 9), 3), ((2, 1), 5), ((3,), 1)]
)
def test_coverage_is_every_sum_of_taps(rates, kernel):
    reach = kernel // 2
    taps = [[rate * tap for tap in range(-reach, reach + 1)] for rate in rates]
    offsets = {sum(choice) for choice in product(*taps)}
    side = hdc.receptive_field(rates, kernel)
    expected = np.zeros((side, side), bool)
    for y, x in product(offsets, offsets):
        expected[side // 2 + y, side // 2 + x] = True
    np.testing.assert_array_equal(hdc.coverage(rates, kernel), expected)


def test_figure_2_gridding_and_its_cure():
    gridded = hdc.coverage([2, 2, 2])
    assert gridded.shape == (13, 13) and gridded.sum() == 49
    assert hdc.sampled_share([2, 2, 2]) == pytest.approx(49 / 169)
    assert hdc.coverage([1, 2, 3]).shape == (13, 13) and hdc.sampled_share([1, 2, 3]) == 1.0


def test_only_the_plain_schedule_leaves_holes_at_resnet101():
    shares = {
        name: hdc.sampled_share(sum(hdc.schedule(name, RESNET101), ())) for name in hdc.SCHEDULES
    }
    plain = shares.pop("plain")
    assert plain == pytest.approx((59 / 117) ** 2)  # every second of 117 columns and rows
    assert set(shares.values()) == {1.0}
