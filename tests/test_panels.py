"""tools/panels.py, which draws Figures 3 to 7: the place and the colours of each picture."""

import numpy as np
import pytest
from PIL import Image

from configs.datasets import load_dataset
from tools.panels import CAPTION, GAP, main
from tools.shared.probabilities import write_probabilities

HW = (20, 31)
CITY = load_dataset("cityscapes")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def city(tmp_path):
    """Write two frames of road; model a (train ids) finds the left of it, b (label ids) the top."""
    for number in range(2):
        name = f"ulm_00000{number}_000019"
        save(tmp_path / f"img/ulm/{name}_leftImg8bit.png", np.full((*HW, 3), 90, np.uint8))
        save(tmp_path / f"gt/ulm/{name}_gtFine_labelIds.png", np.full(HW, 7, np.uint8))
        save(tmp_path / f"gt/ulm/{name}_gtFine_instanceIds.png", np.full(HW, 7, np.uint16))
        left = np.full(HW, 10, np.uint8)
        left[:, :10] = 0
        top = np.full(HW, 26, np.uint8)
        top[:4] = 7
        save(tmp_path / f"a/{name}_leftImg8bit.png", left)
        save(tmp_path / f"b/{name}.png", top)
    return tmp_path


def panels(folder, *more, dataset="cityscapes"):
    options = ("--dataset", dataset, "--images", folder / "img", "--out", folder / "f.png", *more)
    return main([str(option) for option in options])


def cell(figure, row, column, hw=HW):
    top, left = CAPTION + row * (hw[0] + GAP), column * (hw[1] + GAP)
    return figure[top : top + hw[0], left : left + hw[1]]


def test_rows_and_columns(city):
    """Each frame is a row of image, ground truth and predictions, in train ids or label ids."""
    frames = ("ulm_000001_000019", "ulm_000000_000019")
    options = ("--ground-truth", city / "gt", "--predictions", city / "a", city / "b")
    assert panels(city, *options, "--frames", *frames, "--captions", "A", "B") == 0
    figure = np.array(Image.open(city / "f.png"))
    assert figure.shape == (CAPTION + 2 * 20 + GAP, 4 * 31 + 3 * GAP, 3)
    road, sky, car = (CITY.palette[train_id] for train_id in (0, 10, 13))
    for row in range(2):
        assert (cell(figure, row, 0) == 90).all()
        assert (cell(figure, row, 1) == road).all()
        a, b = cell(figure, row, 2), cell(figure, row, 3)
        assert (a[:, :10] == road).all() and (a[:, 10:] == sky).all()
        assert (b[:4] == road).all() and (b[4:] == car).all()
    assert (figure[CAPTION:, 31 : 31 + GAP] == 255).all()


def test_a_detail(city):
    """--crop shows the given rectangle of every picture."""
    options = ("--predictions", city / "b", "--frames", "ulm_000001_000019", "--crop", "2,3,5,7")
    assert panels(city, *options) == 0
    figure = np.array(Image.open(city / "f.png"))
    detail = cell(figure, 0, 1, (5, 7))
    assert (detail[:2] == CITY.palette[0]).all() and (detail[2:] == CITY.palette[13]).all()


def test_values_that_fit_label_ids_and_train_ids(city, capsys):
    """They are refused unless --values says which."""
    name = "ulm_000000_000019"
    save(city / f"c/{name}.png", np.full(HW, 7, np.uint8))
    options = ("--predictions", city / "c", "--frames", name)
    assert panels(city, *options) == 2
    assert "say which with --values" in capsys.readouterr().err
    for values, train_id in (("label_id", 0), ("train_id", 7)):
        assert panels(city, *options, "--values", values) == 0
        figure = np.array(Image.open(city / "f.png"))
        assert (cell(figure, 0, 1) == CITY.palette[train_id]).all()


@pytest.mark.parametrize("suffix", [".bmp", ".TIF", ".gif", ".PNG"])
def test_labels_of_every_lossless_format(tmp_path, suffix):
    label = np.full(HW, 1, np.uint8)
    label[:4] = 0
    save(tmp_path / "img/a.jpg", np.full((*HW, 3), 90, np.uint8))
    save(tmp_path / f"gt/a{suffix}", label)
    save(tmp_path / "out/a.PNG", label)
    (tmp_path / "own.yaml").write_text("name: own\nclasses: [road, '[sky]']\n")
    options = ("--ground-truth", tmp_path / "gt", "--predictions", tmp_path / "out")
    table = load_dataset(tmp_path / "own.yaml")
    assert panels(tmp_path, *options, "--frames", "a", dataset=tmp_path / "own.yaml") == 0
    figure = np.array(Image.open(tmp_path / "f.png"))
    np.testing.assert_array_equal(cell(figure, 0, 1), table.palette[label])
    np.testing.assert_array_equal(cell(figure, 0, 2), table.palette[label])


def test_road_in_red(tmp_path):
    """Pixels above half confidence are tinted, from a confidence or a probability map."""
    save(tmp_path / "img/um_000003.png", np.full((*HW, 3), 100, np.uint8))
    save(tmp_path / "img/uu_000003.png", np.full((*HW, 3), 100, np.uint8))
    confidence = np.full(HW, 127, np.uint8)
    confidence[10:] = 128
    save(tmp_path / "out/um_road_000003.png", confidence)
    road = (np.arange(20)[:, None] >= 10) * np.ones(HW) * 0.8
    write_probabilities(tmp_path / "out/uu_000003.npz", np.stack([1 - road, road]))
    options = ("--predictions", tmp_path / "out", "--overlay", "road")
    assert panels(tmp_path, *options, "--frames", "um_000003", "uu_000003", dataset="kitti") == 0
    figure = np.array(Image.open(tmp_path / "f.png"))
    for row in range(2):
        picture = cell(figure, row, 0)
        assert (picture[:10] == 100).all() and (picture[10:] == [163, 70, 70]).all()


def test_maps_of_other_classes_are_refused(city, capsys):
    write_probabilities(city / "c/ulm_000000_000019.npz", np.full((20, *HW), 0.05))
    assert panels(city, "--predictions", city / "c", "--frames", "ulm_000000_000019") == 2
    error = capsys.readouterr().err
    assert "000019.npz: it has 20 classes, data set cityscapes 19" in error
    assert error.count("\n") == 1 and not (city / "f.png").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--frames", "ulm_000007_000019"), "img: no file of frame ulm_000007_000019 in it"),
        (("--frames", "ulm_000001_000019", "--crop", "1,2,3"), "--crop 1,2,3: expected TOP,LEFT"),
        (("--frames", "ulm_000001_000019", "--crop", "50,2,3,3"), "--crop 50,2,3,3: outside of"),
        (("--frames", "ulm_000001_000019", "--overlay", "rood"), "--overlay rood: expected one of"),
        (("--frames", "ulm_000001_000019", "--captions", "x", "y"), "--captions: expected 1"),
    ],
)
def test_wrong_options(city, options, message, capsys):
    assert panels(city, "--predictions", city / "a", *options) == 2
    assert message in capsys.readouterr().err
    assert not (city / "f.png").exists()


def test_an_overlay_of_all_classes_with_a_legend(city):
    options = ("--predictions", city / "a", "--frames", "ulm_000001_000019")
    assert panels(city, *options, "--overlay", "all", "--legend") == 0
    figure = np.array(Image.open(city / "f.png"))
    assert (cell(figure, 0, 0) == 90).all()
    blended = cell(figure, 0, 1)
    for columns, train_id in ((slice(0, 10), 0), (slice(10, None), 10)):
        expected = (90 + CITY.palette[train_id].astype(float)) / 2
        assert np.abs(blended[:, columns] - expected).max() <= 0.5
    below = figure[CAPTION + 20 :].reshape(-1, 3).tolist()
    for row in CITY.train_classes:
        assert list(row.color) in below, row.name
