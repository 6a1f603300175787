"""KITTI road: the projection against points worked out by hand, the scores against a plain loop."""

import json

import numpy as np
import pytest
from PIL import Image

from configs.datasets import load_dataset
from tools.evaluate import main
from tools.reporting.kitti import KittiEvaluation
from tools.scoring.folder import score_folder
from tools.scoring.kitti import category_scores
from tools.scoring.kitti_bev import read_calibration, to_bev
from tools.shared.probabilities import write_probabilities

# A camera 2 m above the road that looks straight ahead: focal length 100 pixels, centre at column
# 60, row 10. The road's y axis points down, so a road point has y = 2 in the camera's system. The
# last column of P2 moves the colour camera 0.5 m to the left: u = 100 (x + 0.5) / z + 60.
CALIBRATION = """P0: 1 0 0 0 0 1 0 0 0 0 1 0
P2: 100 0 60 50 0 100 10 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_cam_to_road: 1 0 0 0 0 1 0 -2 0 0 1 0
"""
HW = (41, 121)


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "um_000000.txt"
    path.write_text(CALIBRATION)
    return path


def test_points_by_hand(calibration):
    matrix = read_calibration(calibration)
    for x, z, u, v in [(0, 10, 65, 30), (-4.5, 20, 40, 20), (1.5, 40, 65, 15)]:
        point = matrix @ [x, z, 1]
        assert point[:2] / point[2] == pytest.approx((u, v))


def test_rotated_and_rectified_cameras(tmp_path):
    # The road's x is the camera's z and its z the camera's -x; the rectification swaps image axes.
    path = tmp_path / "calib.txt"
    path.write_text(
        "P2: 10 0 0 0 0 10 0 0 0 0 1 0\nR0_rect: 0 1 0 1 0 0 0 0 1\n"
        "Tr_cam_to_road: 0 0 1 0 0 1 0 -3 -1 0 0 0\n"
    )
    u, v, w = read_calibration(path) @ [5, 20, 1]  # camera: x = -20, y = 3, z = 5
    assert (u / w, v / w) == pytest.approx((10 * 3 / 5, 10 * -20 / 5))


def test_cells_by_hand(calibration):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    picture = np.stack([rows, columns, np.full(HW, 200)], axis=-1).astype(np.uint8)
    bev = to_bev(picture, read_calibration(calibration))
    assert bev.shape == (800, 400, 3)
    # Row 719 is z = 46 - 719.5 * 0.05 = 10.025 m, column 220 x = -10 + 220.5 * 0.05 = 1.025 m:
    # u = 100 * 1.525 / 10.025 + 60 = 75.21, v = 200 / 10.025 + 10 = 29.95, counted from 1.
    assert bev[719, 220].tolist() == [28, 74, 200]
    # Row 0, column 0: z = 45.975, x = -9.975: u = 60 - 947.5 / 45.975 = 39.39, v = 14.35.
    assert bev[0, 0].tolist() == [13, 38, 200]
    # Row 799 is z = 6.025: v = 43.2 is below the 41 rows.
    assert not bev[799].any()
    # Row 758, z = 8.075: v = 34.8; column 0 has u = 60 - 947.5 / 8.075 < 1, column 399 u = 189.8.
    assert not bev[758, 0].any() and not bev[758, 399].any() and bev[758, 200].any()
    assert to_bev(picture[..., 0], read_calibration(calibration)).shape == (800, 400)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("R0_rect", "R_rect", "has no line 'R0_rect:'"),
        ("P2: 100 0", "P2: 100", "P2: expected 12 numbers, found '100 60 50"),
        ("P2: 100", "P2: x", "P2: expected 12 numbers"),
        ("P2: 100", "P2: nan", "P2: expected 12 numbers, found 'nan"),
        ("d: 1 0 0 0 0 1 0 -2 0 0 1 0", "d: 1 0 0 0 0 1 0 -2 0 0 0 0", "cannot be inverted"),
    ],
)
def test_a_wrong_calibration_file(tmp_path, old, new, message):
    path = tmp_path / "um_000000.txt"
    path.write_text(CALIBRATION.replace(old, new))
    with pytest.raises(ValueError, match=f"um_000000.txt: .*{message}"):
        read_calibration(path)


def scores_by_loop(road, confidence):
    """The development kit's definitions, threshold by threshold."""
    f1s, precisions, recalls = [], [], []
    for k in range(256):
        hits = np.sum(confidence[road] >= k)
        wrong = np.sum(confidence[~road] >= k)
        recalls.append(hits / road.sum())
        precisions.append(hits / (hits + wrong) if hits else 0)
        f1s.append(2 * hits / (hits + wrong + road.sum()))
    best = int(np.argmax(f1s))
    ap = np.mean([max(p for p, r in zip(precisions, recalls) if r >= i / 10) for i in range(11)])
    wrong = np.sum(confidence[~road] >= best)
    return {
        "max_f": f1s[best],
        "ap": ap,
        "pre": precisions[best],
        "rec": recalls[best],
        "fpr": wrong / np.sum(~road),
        "fnr": 1 - recalls[best],
        "threshold": best,
    }


def test_scores_against_a_loop():
    random = np.random.default_rng(3)
    road = random.random(5000) < 0.3
    confidence = np.clip(random.normal(90 + 70 * road, 50), 0, 255).astype(np.uint8)
    counts = [np.bincount(confidence[mask], minlength=256) for mask in (~road, road)]
    ours = category_scores(np.array(counts))
    assert ours == pytest.approx(scores_by_loop(road, confidence), abs=1e-9)


def test_scores_by_hand():
    counts = np.zeros((2, 256), np.int64)
    counts[1, [200, 100, 50]] = 5, 3, 2  # road
    counts[0, [150, 10]] = 4, 6  # not road
    scores = category_scores(counts)
    # F1 at >= 200: 10/15, >= 100: 16/22, >= 50: 20/24; the last wins at thresholds 11..50.
    assert scores["max_f"] == pytest.approx(20 / 24)
    assert (scores["pre"], scores["rec"], scores["fpr"], scores["fnr"]) == (10 / 14, 1, 0.4, 0)
    assert scores["threshold"] == 11
    # Precision 1 up to recall 0.5 (6 levels); beyond, 10/14 at recall 1 beats 8/12 at 0.8.
    assert scores["ap"] == pytest.approx((6 + 5 * 10 / 14) / 11)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def kitti(tmp_path):
    """Write two um frames and one uu: the right half is road, the top rows are not valid."""
    truth = np.zeros((*HW, 3), np.uint8)
    truth[12:, :, 0] = 255
    truth[12:, 60:, 2] = 255
    confidence = np.zeros(HW, np.uint8)
    confidence[:, 60:] = 180
    confidence[:, 60:70] = 0
    for name in ("um_000000", "um_000007", "uu_000000"):
        category, number = name.split("_")
        save(tmp_path / "training/gt_image_2" / f"{category}_road_{number}.png", truth)
        save(tmp_path / "out" / f"{category}_road_{number}.png", confidence)
        (tmp_path / "training/calib").mkdir(exist_ok=True)
        (tmp_path / "training/calib" / f"{name}.txt").write_text(CALIBRATION)
    save(tmp_path / "training/gt_image_2/um_lane_000000.png", truth)
    return tmp_path


def run(kitti, *more):
    paths = ["--ground-truth", str(kitti / "training"), "--predictions", str(kitti / "out")]
    return main(["--dataset", "kitti", *paths, "--json", str(kitti / "s.json"), *more])


def test_perspective_maps_are_scored_in_birds_eye_view(kitti, capsys):
    assert run(kitti) == 0
    assert "URBAN" in capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads((kitti / "s.json").read_text())["categories"]}
    assert {name: row["frames"] for name, row in rows.items()} == {
        "um_road": 2,
        "uu_road": 1,
        "URBAN": 3,
    }
    # The expectation, from the road point of each cell: columns are floor(u) - 1.
    x = -10 + 0.05 * (np.arange(400) + 0.5)
    z = 46 - 0.05 * (np.arange(800) + 0.5)[:, None]
    u, v = 100 * (x + 0.5) / z + 60, 200 / z + 10
    counted = (u >= 1) & (u <= 121) & (v >= 13) & (v <= 41)
    road, sure = counted & (u >= 61), counted & (u >= 71)
    assert rows["URBAN"]["rec"] == sure.sum() / road.sum() < 0.9
    assert rows["URBAN"]["max_f"] == pytest.approx(2 * sure.sum() / (sure.sum() + road.sum()))
    assert (rows["um_road"]["pre"], rows["um_road"]["threshold"]) == (1, 1)
    # At threshold 0 every pixel is road: precision is the share of road, recall is 1.
    levels = np.arange(11) / 10 <= rows["URBAN"]["rec"]
    share = road.sum() / counted.sum()
    assert rows["URBAN"]["ap"] == pytest.approx(np.where(levels, 1, share).mean())


def test_birds_eye_maps_and_probability_maps_score_the_same(kitti):
    dataset = load_dataset("kitti")
    first = score_folder(dataset, kitti / "training", kitti / "out")
    random = np.random.default_rng(0)
    for file in (kitti / "out").glob("*.png"):
        noise = random.integers(0, 200, HW).astype(np.uint8)
        category, _, number = file.stem.split("_")
        save(file, noise)
        matrix = read_calibration(kitti / "training/calib" / f"{category}_{number}.txt")
        save(kitti / "bev" / file.name, to_bev(noise, matrix))
        road = noise.astype(np.float32) / 255
        (kitti / "maps").mkdir(exist_ok=True)
        write_probabilities(kitti / "maps" / f"{category}_{number}.npz", np.stack([1 - road, road]))
    noisy = score_folder(dataset, kitti / "training", kitti / "out")
    assert noisy != first
    assert score_folder(dataset, kitti / "training", kitti / "bev") == noisy
    assert score_folder(dataset, kitti / "training/gt_image_2", kitti / "maps") == noisy


def test_maps_of_other_classes_are_refused(kitti, capsys):
    write_probabilities(kitti / "out/um_000007.npz", np.full((19, *HW), 0.05))
    assert run(kitti) == 2
    error = capsys.readouterr().err
    assert "um_000007.npz: it has 19 classes, data set kitti 2" in error and error.count("\n") == 1
    assert not (kitti / "s.json").exists()


def test_a_threshold_of_zero_takes_every_pixel_for_road(kitti):
    """No confidence at all is best taken as road everywhere: 61 of 121 columns are right."""
    for file in (kitti / "out").glob("*.png"):
        save(file, np.zeros(HW, np.uint8))
    image = np.zeros((*HW, 3), np.uint8)
    for name in ("um_000000", "um_000007", "uu_000000"):
        save(kitti / "images" / f"{name}.png", image)
    report = KittiEvaluation.of_folders(
        load_dataset("kitti"), kitti / "images", kitti / "training", kitti / "out"
    )
    assert [row["threshold"] for row in report.official["categories"]] == [0, 0, 0]
    ious = {row["name"]: row["iou"] for row in report.scores["classes"]}
    assert ious["road"] == pytest.approx(61 / 121)
    assert (report.layers(0).prediction == 1).all()


def test_lanes_take_part_where_predicted(kitti):
    save(kitti / "out/um_lane_000000.png", np.full(HW, 9, np.uint8))
    rows = score_folder(load_dataset("kitti"), kitti / "training", kitti / "out")["categories"]
    assert [row["name"] for row in rows] == ["um_lane", "um_road", "uu_road", "URBAN"]
    assert rows[-1]["frames"] == 3


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda k: (k / "out/uu_road_000000.png").unlink(), "no prediction for uu_road_000000"),
        (
            lambda k: save(k / "out/uu_road_000009.png", np.zeros(HW, np.uint8)),
            "uu_road_000009.png",
        ),
        (lambda k: save(k / "out/uu_000000.png", np.zeros(HW, np.uint8)), "is of the same frame"),
        (
            lambda k: save(k / "out/uu_road_000000.png", np.zeros((5, 7), np.uint8)),
            "is 7x5, expected",
        ),
        (lambda k: (k / "training/calib/um_000007.txt").unlink(), "calib/um_000007.txt"),
        (
            lambda k: [save(f, np.ones(HW, np.uint8)) for f in (k / "out").glob("*.png")],
            "every predicted value is 0 or 1 .train ids",
        ),
    ],
)
def test_a_bad_file_is_named(kitti, spoil, message, capsys):
    spoil(kitti)
    assert run(kitti) == 2
    assert message.replace(".train", "(train") in capsys.readouterr().err
    assert not (kitti / "s.json").exists()
