"""evaluate.py --model gives the same scores as predict.py followed by evaluate.py."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from tiny_run import make_run

from configs.datasets import load_dataset
from data_iter.datasets import find_samples
from data_iter.image_files import read_label
from tools import evaluate, predict
from tools.scoring.kitti import road_frame
from tools.toy.folder import make


def call(main, *arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    for layout in ("cityscapes", "kitti"):
        settings = {"layout": layout, "frames": 15, "seed": 0, "hw": [64, 96]}
        make(folder / layout, settings)
    return folder


FILES = ("--dataset", "camvid", "--ground-truth", "g", "--predictions", "p")
FOLDERS = {
    "cityscapes": ("", "leftImg8bit/val", "gtFine/val"),
    "kitti": ("data_road", "training/image_2", "training"),
}


@pytest.mark.parametrize("layout", FOLDERS)
def test_a_network_scores_as_its_predictions_do(layout, toys, tmp_path):
    run = make_run(tmp_path / "run", dataset=layout).path
    root, images, truths = FOLDERS[layout]
    root = toys / layout / root
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    model = ("--model", run, "--data-root", root)
    assert call(evaluate.main, *model, "--json", whole) == 0
    found = json.loads(whole.read_text())
    page, beside = tmp_path / "page.html", tmp_path / "beside.json"
    assert call(evaluate.main, *model, "--json", beside, "--report", page) == 0
    assert json.loads(beside.read_text()) == found
    options = ["--model", run, "--out", tmp_path / "out", "--save-probabilities"]
    assert call(predict.main, root / images, *options) == 0
    options = ["--dataset", layout, "--ground-truth", root / truths, "--json", parts]
    if layout == "kitti":  # its validation frames are held out of training
        samples = find_samples("kitti", root, "val")
        (tmp_path / "names").write_text("\n".join(road_frame(s.name) for s in samples))
        options += ["--names", tmp_path / "names"]
    else:
        options += ["--values", "train_id"]
    assert call(evaluate.main, *options, "--predictions", tmp_path / "out") == 0
    expected = json.loads(parts.read_text())
    assert found == expected
    assert found["images"] == 3
    check_page(page.read_text(), found, tmp_path / "out")


def check_page(page, found, predictions):
    """Check that the page has the scores, and the pictures that predict.py wrote."""
    if "categories" in found and "mean_iou" not in found:
        score = found["categories"][-1]["max_f"]
    else:
        score = found["mean_iou"]
    assert f">{100 * score:.2f}\n" in page
    assert page.count("<article") == 3
    if "mean_iou" not in found:
        return  # KITTI's picture is the confidence above a threshold
    painted = re.findall(r'src="data:image/png;base64,([^"]*)" alt="prediction of ([^"]*)"', page)
    assert len(painted) == 3
    palette = load_dataset("cityscapes").palette
    for encoded, name in painted:
        shown = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))))
        (file,) = predictions.glob(f"{name}*.png")
        np.testing.assert_array_equal(shown, palette[read_label(file)])


def test_every_epoch_of_a_run(toys, tmp_path, capsys):
    """--epoch all scores each epoch with its own parameters."""
    run = make_run(tmp_path / "run", dataset="cityscapes", epoch=1)
    other = make_run(tmp_path / "other", dataset="cityscapes", epoch=4, seed=2)
    run.params_file(4).write_bytes(other.params_file(4).read_bytes())
    root, out = toys / "cityscapes", tmp_path / "scores.json"
    options = ["--model", run.path, "--data-root", root, "--epoch", "all", "--json", out]
    assert call(evaluate.main, *options) == 0
    scores = json.loads(out.read_text())
    assert [row["epoch"] for row in scores] == [1, 4]
    assert scores[0]["confusion"] != scores[1]["confusion"]
    assert f"epoch 4: mIoU {100 * scores[1]['mean_iou']:.2f} %" in capsys.readouterr().out


def test_options_that_do_not_go_together(tmp_path, capsys):
    for options, says in (
        (["--report", "p.html", *FILES], "--report needs --model"),
        ([], "--dataset is needed, or --model with --data-root"),
        (["--model", "run"], "--model needs --data-root"),
        (["--model", "run", "--data-root", "d", "--predictions", "p"], "without --predictions"),
        (["--model", tmp_path / "no", "--data-root", "d"], "no such run folder or ONNX file"),
    ):
        assert call(evaluate.main, *options) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
