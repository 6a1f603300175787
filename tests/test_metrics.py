"""Confusion matrix and IoU against counts made by hand and by a plain loop."""

import numpy as np
import pytest

from train.metrics import (
    confusion_matrix,
    dice,
    frequency_weighted_iou,
    iou,
    joint_histogram,
    mean_score,
    pixel_accuracy,
    precision,
    recall,
)


def test_confusion_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    confusion = confusion_matrix(truth, prediction, 4, 255)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # Class 0: 1 hit, 1 missed, 1 wrong; 1: 2 hits, 1 wrong; 2: only missed; 3: nowhere.
    np.testing.assert_array_equal(iou(confusion), [1 / 3, 2 / 3, 0, np.nan])
    assert mean_score(iou(confusion)) == pytest.approx(1 / 3)
    assert pixel_accuracy(confusion) == 3 / 5


def test_precision_recall_dice_and_weighted_iou_by_hand():
    confusion = np.array([[6, 2, 0, 1], [0, 3, 0, 0], [0, 5, 0, 0]])  # the last column: no class
    nan = np.nan
    np.testing.assert_array_equal(precision(confusion), [6 / 6, 3 / 10, nan])
    np.testing.assert_array_equal(recall(confusion), [6 / 9, 3 / 3, 0 / 5])
    np.testing.assert_array_equal(dice(confusion), [12 / 15, 6 / 13, 0 / 5])
    expected = (9 * 6 / 9 + 3 * 3 / 10 + 5 * 0) / 17
    assert frequency_weighted_iou(confusion) == pytest.approx(expected, abs=1e-15)
    absent = np.array([[4, 0], [0, 0]])
    np.testing.assert_array_equal(recall(absent), [1, nan])
    np.testing.assert_array_equal(dice(absent), [1, nan])
    assert frequency_weighted_iou(absent) == 1
    assert np.isnan(frequency_weighted_iou(np.zeros((2, 2))))


def test_a_prediction_that_is_no_class_is_a_miss():
    np.testing.assert_array_equal(iou(np.array([[3, 1, 4], [0, 5, 0]])), [3 / 8, 5 / 6])


def test_the_ignored_value_may_lie_inside_the_range():
    truth, prediction = np.array([0, 1, 2], np.uint8), np.array([1, 1, 2], np.uint8)
    assert confusion_matrix(truth, prediction, 3, 1).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_a_large_odd_size_against_a_loop():
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 256, (2, 37, 53)).astype(np.uint8)
    expected = np.zeros((256, 256), int)
    for pair in zip(truth.flat, prediction.flat):
        expected[pair] += 1
    np.testing.assert_array_equal(joint_histogram(truth, prediction), expected)


@pytest.mark.parametrize(
    "truth, prediction, message",
    [
        ([0, 3], [0, 0], "truth value 3 at 1 pixels, expected 0..2"),
        ([0, 255], [0, 255], "prediction value 255 at 1 pixels, expected 0..2"),
        ([0, 1, 2], [0, 1], "shapes"),
    ],
)
def test_values_out_of_range_raise(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.uint8(truth), np.uint8(prediction), 3, 255)


def test_no_counted_pixel():
    """Accuracy and mean IoU are then NaN."""
    confusion = confusion_matrix(np.full(3, 255, np.uint8), np.zeros(3, np.uint8), 2, 255)
    assert np.isnan(pixel_accuracy(confusion)) and np.isnan(mean_score(iou(confusion)))


def test_labels_of_another_type_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        joint_histogram(np.zeros(3, np.int64), np.zeros(3, np.uint8))
