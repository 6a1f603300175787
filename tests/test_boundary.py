"""Boundary IoU against counts made by hand and against the authors' method on single masks."""

import json
import math

import cv2
import numpy as np
import pytest

from configs.datasets import load_dataset
from tools import evaluate
from tools.scoring.boundary import boundary_histogram, boundary_iou
from tools.scoring.folder import score_folder

IGNORE = 255


def score(frames, classes):
    counts = sum(boundary_histogram(*frame, classes, IGNORE) for frame in frames)
    return boundary_iou(counts, np.arange(classes))


def test_by_hand():
    """8x12, diagonal 14.4: bands are one pixel wide."""
    truth = np.zeros((8, 12), np.uint8)
    truth[2:6, 2:8] = 1
    predicted = np.zeros((8, 12), np.uint8)
    predicted[2:6, 3:9] = 1  # one pixel to the right
    # Class 1: bands of 4x6 - 2x4 = 16 pixels each. Top and bottom rows share 2 x 5; of the left
    # and right columns, true 2 and 7, predicted 3 and 8, none is shared between the corners.
    assert score([(truth, predicted)], 2)[1] == 10 / (16 + 16 - 10)
    # Class 0: the image's border, 36 pixels, and around the box 6x8 - 4x6 = 24. Those around the
    # boxes share rows 1 and 6 from column 2 to 8, 2 x 7, and no column (1 and 8; 2 and 9).
    assert score([(truth, predicted)], 2)[0] == (36 + 14) / (60 + 60 - 50)
    np.testing.assert_array_equal(score([(truth, truth)], 3), [1, 1, np.nan])


def by_masks(frames, classes):
    """Do what the authors' boundary_iou_api does: pad by zeros, erode by 3x3, subtract."""
    hits, unions = np.zeros(classes), np.zeros(classes)
    for truth, prediction in frames:
        distance = max(1, round(0.02 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
        for train_id in range(classes):
            bands = []
            for labels in (truth, prediction):
                mask = ((labels == train_id) & (truth != IGNORE)).astype(np.uint8)
                padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
                eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
                bands.append((mask - eroded[1:-1, 1:-1]).astype(bool))
            hits[train_id] += (bands[0] & bands[1]).sum()
            unions[train_id] += (bands[0] | bands[1]).sum()
    return hits / unions


def test_of_several_sizes_against_masks():
    random = np.random.default_rng(4)
    frames = []
    for hw in ((90, 141), (200, 130)):  # bands of 3 and 5 pixels
        blobs = [cv2.resize(random.integers(0, 4, (6, 7), np.uint8), hw[::-1], interpolation=0)
                 for _ in range(2)]  # fmt: skip
        truth = np.where(random.random(hw) < 0.1, blobs[1], blobs[0])
        truth[10:30, 40:70] = IGNORE
        prediction = np.roll(blobs[0], (2, -3), axis=(0, 1))
        frames.append((truth, prediction))
    found = score(frames, 4)
    np.testing.assert_allclose(found, by_masks(frames, 4), rtol=1e-12)
    assert (found > 0.05).all() and (found < 0.95).all()


@pytest.fixture
def own(tmp_path):
    """Write a label file with ids 3 (road) and 7 (car), and predictions in label and train ids."""
    (tmp_path / "own.yaml").write_text(
        "name: own\nclasses: [{name: road, id: 3}, {name: '[car]', id: 7}, {name: sky, id: 9}]\n"
    )
    truth = np.full((8, 12), 3, np.uint8)
    truth[2:6, 2:8] = 7
    predicted = np.full((8, 12), 3, np.uint8)
    predicted[2:6, 3:9] = 7
    for folder, labels in (("gt", truth), ("out", predicted), ("ids", predicted // 7)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), labels)
    return tmp_path


@pytest.mark.parametrize("folder", ["out", "ids"])  # label ids, train ids
def test_an_own_set_gets_all_measures(own, folder):
    scores = score_folder(load_dataset(own / "own.yaml"), own / "gt", own / folder)
    road, car, sky = scores["classes"]
    # 24 pixels of car, 20 of them found, and 4 others called car; 72 - 4 of road.
    assert car["precision"] == car["recall"] == car["dice"] == 20 / 24
    assert car["iou"] == 20 / 28
    assert road["recall"] == 68 / 72
    assert (car["boundary_iou"], road["boundary_iou"]) == (10 / 22, 50 / 70)
    assert {sky[key] for key in ("iou", "precision", "recall", "dice", "boundary_iou")} == {None}
    assert scores["mean_boundary_iou"] == pytest.approx((10 / 22 + 50 / 70) / 2)
    weighted = (72 * 68 / 76 + 24 * 20 / 28) / 96
    assert scores["frequency_weighted_iou"] == pytest.approx(weighted)


def test_people_read_percent_and_files_hold_shares(own, capsys):
    folders = ["--ground-truth", str(own / "gt"), "--predictions", str(own / "out")]
    table, file = str(own / "own.yaml"), own / "scores.json"
    assert evaluate.main(["--dataset", table, *folders, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    cells = {
        parts[1]: parts[2:-1]
        for line in out.splitlines()
        if len(parts := [part.strip() for part in line.split("│")]) > 3
    }
    assert cells["[car]"] == ["71.43", "83.33", "83.33", "83.33", "45.45", "24"]
    assert cells["sky"] == ["-", "-", "-", "-", "-", "0"]
    assert "frequency-weighted IoU 84.96 %" in out
    assert json.loads(file.read_text())["mean_dice"] == pytest.approx((20 / 24 + 68 / 72) / 2)


def test_a_benchmark_keeps_its_official_scores(own):
    for name in ("voc", "cityscapes"):
        suffix = "a_0_0_gtFine_labelIds.png" if name == "cityscapes" else "a_0_0.png"
        (own / name).mkdir()
        cv2.imwrite(str(own / name / suffix), np.full((4, 6), 7, np.uint8))
        (own / f"{name}_out").mkdir()
        cv2.imwrite(str(own / f"{name}_out/a_0_0.png"), np.full((4, 6), 7, np.uint8))
        scores = score_folder(load_dataset(name), own / name, own / f"{name}_out", None, "label_id")
        assert set(scores["classes"][0]) == {"name", "iou", "valid_pixels", "predicted_pixels"}
        assert "mean_dice" not in scores and "frequency_weighted_iou" not in scores
