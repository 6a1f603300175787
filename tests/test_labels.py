"""Label values become train ids, and an error names the likely cause of wrong values."""

import numpy as np
import pytest

from configs.datasets import load_dataset
from data_iter import DataError
from data_iter.labels import ranges, to_train_ids

LABEL_IDS = load_dataset("cityscapes").label_lut
TRAIN_IDS = np.full(256, -1, np.int16)
TRAIN_IDS[:19] = np.arange(19)
TRAIN_IDS[255] = 255


def test_cityscapes_label_ids_become_train_ids():
    label = np.array([[7, 8, 0], [33, 26, 3]], np.uint8)
    assert to_train_ids(label, LABEL_IDS, "x").tolist() == [[0, 1, 255], [18, 13, 255]]


def test_an_empty_label_stays_empty():
    assert to_train_ids(np.empty((0, 0), np.uint8), LABEL_IDS, "x").shape == (0, 0)


@pytest.mark.parametrize(
    ("values", "lut", "cause"),
    [
        ([7, 8, 11, 26, 33], TRAIN_IDS, "labelIds where train ids are expected"),
        ([0, 1, 18, 255], LABEL_IDS, "train ids .* where labelIds are expected"),
        ([0, 255], LABEL_IDS, "black-and-white mask"),
        ([1, 2, 19, 255], TRAIN_IDS, "counted from 1"),
        (list(range(120)), TRAIN_IDS, "colour or compressed"),
        ([0, 70, 84, 153], TRAIN_IDS, "picture converted to grey"),
        ([0] * 3000 + [19], TRAIN_IDS, "counted from 1 instead of 0, or .* JPEG"),
        ([0] * 3000 + [25], TRAIN_IDS, "changed by JPEG compression or smooth resizing"),
    ],
)
def test_the_likely_cause_is_said(values, lut, cause):
    with pytest.raises(DataError, match=cause):
        to_train_ids(np.array([values], np.uint8), lut, "labels/x.png")


def test_the_message_names_file_values_and_what_is_expected():
    label = np.array([[0, 44], [44, 200]], np.uint8)
    expected = r"labels/x\.png: .*: 44 \(2 pixels\), 200 \(1 pixels\); expected 0-18, 255$"
    with pytest.raises(DataError, match=expected):
        to_train_ids(label, TRAIN_IDS, "labels/x.png")


def test_ranges():
    assert ranges(np.array([0, 1, 2, 5, 7, 8])) == "0-2, 5, 7-8"
