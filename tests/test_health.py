"""The cross-entropy that training logs, by hand."""

import math

import mxnet as mx
import numpy as np
import pytest

from train.health import cross_entropy


def loss(probabilities, label):
    return cross_entropy(
        mx.nd.array(np.float32(probabilities)), mx.nd.array(np.float32(label)), 255
    )


# (samples, classes, cells): two samples of three classes and two cells.
PROBABILITIES = [[[0.5, 0.1], [0.3, 0.2], [0.2, 0.7]], [[0.25, 0.6], [0.25, 0.3], [0.5, 0.1]]]


def test_cross_entropy_is_the_mean_over_valid_cells():
    found = loss(PROBABILITIES, [[0, 255], [2, 1]])
    assert found == pytest.approx(-(math.log(0.5) + math.log(0.5) + math.log(0.3)) / 3, rel=1e-6)
    assert loss(PROBABILITIES, [[255, 255], [255, 255]]) == 0


def test_no_probability_is_infinite_and_nan_stays_nan():
    wrong = np.float32(PROBABILITIES)
    wrong[0, 0, 0] = 0
    assert 20 < loss(wrong, [[0, 255], [255, 255]]) < 30
    wrong[0, 0, 0] = np.nan
    assert math.isnan(loss(wrong, [[0, 0], [0, 0]]))
