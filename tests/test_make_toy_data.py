"""The generated data sets: official layouts, right geometry, determinism, whole results only."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label
from PIL import Image

from configs.datasets import load_dataset
from tools import import_data, make_toy_data
from tools.toy.canvas import Camera

SCRIPT = Path(make_toy_data.__file__)
COMMON = "--frames 9 --size 65,130"


def generate(out, options):
    return make_toy_data.main(["--out", str(out), *options.split()])


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "cityscapes"
    assert generate(out, COMMON) == 0
    return out


def test_the_export_of_annotations_becomes_the_labels_of_the_cityscapes_layout(
    cityscapes, tmp_path, capsys
):
    streets, own = tmp_path / "streets", tmp_path / "own"
    assert generate(streets, f"--layout coco {COMMON}") == 0
    assert "9 annotated frames in the coco layout" in capsys.readouterr().out
    source = [str(streets / "annotations.json"), "--images", str(streets / "photos")]
    assert import_data.main([*source, "--out", str(own), "--val-share", "0"]) == 0
    ids = {row.name: row.id for row in load_dataset(own / "classes.yaml").classes}
    expected = np.full(256, 255, np.uint8)
    for label in id2label.values():
        if label.name in ids:
            expected[label.id] = ids[label.name]
    for number in range(9):  # the same streets
        (official,) = cityscapes.glob(f"gtFine/train/*/*_{number:06d}_000019_gtFine_labelIds.png")
        label = cv2.imread(str(own / f"labels/train/street_{number:04d}.png"), cv2.IMREAD_UNCHANGED)
        official_ids = cv2.imread(str(official), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(label, expected[official_ids])


def test_cityscapes_layout_sizes_and_official_ids(cityscapes):
    images = sorted(cityscapes.glob("leftImg8bit/*/*/*_leftImg8bit.png"))
    assert [path.parts[-3] for path in images] == ["test"] + ["train"] * 9 + ["val"]
    seen = set()
    for image in images:
        city, name = image.parent.name, image.name[: -len("_leftImg8bit.png")]
        assert name.startswith(f"{city}_00000") and name.endswith("_000019")
        folder = cityscapes / "gtFine" / image.parts[-3] / city
        labels = cv2.imread(f"{folder}/{name}_gtFine_labelIds.png", cv2.IMREAD_UNCHANGED)
        ids = cv2.imread(f"{folder}/{name}_gtFine_instanceIds.png", cv2.IMREAD_UNCHANGED)
        assert cv2.imread(str(image)).shape == (65, 130, 3)
        assert (labels.shape, labels.dtype) == ((65, 130), np.uint8)
        assert (ids.shape, ids.dtype) == ((65, 130), np.uint16)
        for value in np.unique(ids):
            label = value // 1000 if value >= 1000 else value
            assert id2label[label].hasInstances or value < 1000
            assert (labels[ids == value] == label).all()
        if image.parts[-3] == "test":
            assert set(np.unique(labels)) <= {0, 1}
        else:
            seen |= {id2label[value].name for value in np.unique(labels)}
    assert seen >= {
        "ego vehicle",
        "road",
        "sidewalk",
        "building",
        "pole",
        "traffic sign",
        "car",
    }
    assert seen >= {"traffic light", "vegetation", "terrain", "sky", "person"}


def test_the_same_things_come_large_and_small(cityscapes):
    heights, numbers = {24: [], 26: []}, set()
    for path in cityscapes.glob("gtFine/train/*/*_instanceIds.png"):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for value in np.unique(ids[ids >= 1000]):
            if value // 1000 in heights:
                numbers.add(value % 1000)
                heights[value // 1000].append(int(np.ptp(np.nonzero(ids == value)[0])) + 1)
    assert {0, 1, 2, 3} <= numbers
    for label, found in heights.items():
        assert max(found) >= 4 * min(found), (label, found)


def test_a_seed_gives_the_same_bytes_and_another_does_not(cityscapes, tmp_path):
    assert generate(tmp_path / "a", COMMON) == 0
    assert contents(tmp_path / "a") == contents(cityscapes)
    assert generate(tmp_path / "b", f"{COMMON} --seed 1") == 0
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if "leftImg8bit" in name.parts)


def test_camera_projects_by_hand_and_back():
    matrix = np.array([[100.0, 0, 50, 0], [0, 100, 30, 150], [0, 0, 1, 0]])  # 1.5 m above the road
    camera = Camera(matrix, (61, 101))
    np.testing.assert_allclose(camera.project([(2.0, 0, 10)]), [[70, 45]])
    x, z = camera.ground()
    assert (x[45, 70], z[45, 70]) == pytest.approx((2, 10))
    assert np.isinf(z[:31]).all() and np.isfinite(z[31:]).all()
    # The centre sample of an enlarged pixel is the pixel's own centre.
    np.testing.assert_allclose(camera.enlarged(3).project([(2.0, 0, 10)]), [[211, 136]])


def test_kitti_calibration_is_true_to_the_picture(tmp_path):
    assert generate(tmp_path, "--layout kitti --frames 12 --size 188,621") == 0
    training = tmp_path / "data_road" / "training"
    names = sorted(path.stem for path in (training / "image_2").iterdir())
    assert names == [f"{c}_{n:06d}" for c in ("um", "umm", "uu") for n in range(4)]
    assert sorted(p.stem for p in (tmp_path / "data_road/testing/calib").iterdir()) == [
        "um_000000", "umm_000000", "uu_000000"
    ]  # fmt: skip
    inside = outside = 0
    for name in names:
        category, number = name.split("_")
        image = cv2.imread(str(training / "image_2" / f"{name}.png"))
        road = cv2.imread(str(training / "gt_image_2" / f"{category}_road_{number}.png"))[..., ::-1]
        lane_file = training / "gt_image_2" / f"{category}_lane_{number}.png"
        assert road.shape == image.shape and 185 <= image.shape[0] <= 189
        assert {tuple(colour) for colour in road.reshape(-1, 3)} <= {
            (255, 0, 0), (255, 0, 255), (0, 0, 0)
        }  # fmt: skip
        assert lane_file.exists() == (category == "um")
        calib = {}
        for line in (training / "calib" / f"{name}.txt").read_text().splitlines():
            key, numbers = line.split(": ")
            calib[key] = np.array(numbers.split(), float)
        assert {key: len(values) for key, values in calib.items()} == {
            "P0": 12, "P1": 12, "P2": 12, "P3": 12, "R0_rect": 9,
            "Tr_velo_to_cam": 12, "Tr_imu_to_velo": 12, "Tr_cam_to_road": 12,
        }  # fmt: skip
        if category == "um":
            # The benchmark's own chain, on points of the ground 7 m ahead: the lane is 3.2 m wide.
            square = np.eye(4)
            square[:3, :3] = calib["R0_rect"].reshape(3, 3)
            to_road = np.vstack([calib["Tr_cam_to_road"].reshape(3, 4), [0, 0, 0, 1]])
            chain = calib["P2"].reshape(3, 4) @ square @ np.linalg.inv(to_road)
            lane = cv2.imread(str(lane_file))[..., 0] > 0
            for across in (-2, -1.66, -1.54, 0, 1.54, 1.66, 2):
                u, v, w = chain @ (across, 0, 7, 1)
                inside += lane[round(v / w), round(u / w)] and abs(across) < 1.6
                outside += lane[round(v / w), round(u / w)] and abs(across) > 1.6
    assert inside >= 9 and outside == 0  # of 12; an object may hide some


def test_voc_objects_have_a_border_and_the_lists_agree(tmp_path):
    assert generate(tmp_path, "--layout voc --frames 8 --size 81,109") == 0
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = {p.stem: p.read_text().split() for p in (root / "ImageSets/Segmentation").iterdir()}
    assert [len(lists[split]) for split in ("train", "val", "test")] == [8, 1, 1]
    assert lists["trainval"] == lists["train"] + lists["val"]
    assert sorted(p.stem for p in (root / "JPEGImages").iterdir()) == sorted(
        lists["trainval"] + lists["test"]
    )
    assert sorted(p.stem for p in (root / "SegmentationClass").iterdir()) == lists["trainval"]
    shapes, values = set(), set()
    for name in lists["trainval"]:
        label = Image.open(root / "SegmentationClass" / f"{name}.png")
        image = Image.open(root / "JPEGImages" / f"{name}.jpg")
        assert label.mode == "P" and label.size == image.size
        assert label.getpalette()[7 * 3 : 8 * 3] == [
            128,
            128,
            128,
        ]  # car, in VOC's colour map
        truth = np.array(label)
        shapes.add(truth.shape)
        values |= set(np.unique(truth))
        across = np.sort(np.stack([truth[:, :-1], truth[:, 1:]]).reshape(2, -1), axis=0)
        down = np.sort(np.stack([truth[:-1], truth[1:]]).reshape(2, -1), axis=0)
        for low, high in np.concatenate([across, down], axis=1).T:
            assert low == high or high == 255
    assert values == {0, 6, 7, 15, 255} and len(shapes) >= 3


def test_what_is_there_already_is_never_touched(cityscapes, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in cityscapes.rglob("*")}
    assert generate(cityscapes, COMMON) == 0
    assert "already there" in capsys.readouterr().out
    assert generate(cityscapes, f"{COMMON} --seed 7") == 2
    assert "made with other settings" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in cityscapes.rglob("*")} == before
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    assert generate(tmp_path, COMMON) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "something else" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    assert generate(tmp_path / "holiday.jpg", COMMON) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [
        ("--size 128", "--size 128: expected HEIGHT,WIDTH"),
        ("--size 16,256", "each at least 32"),
        ("--frames 0", "--frames must be at least 1"),
        ("--seed -1", "--seed at least 0"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, options, said):
    assert generate(tmp_path / "new", options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            SCRIPT,
            "--out",
            "toy",
            "--frames",
            "5000",
            "--size",
            "64,128",
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    deadline = time.time() + 60
    while not list(tmp_path.glob(".toy-*/*/leftImg8bit/train/*/*.png")):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and list(tmp_path.iterdir()) == []
