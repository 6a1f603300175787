"""tools/predict.py, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_run import make_run, noise

from configs.datasets import load_dataset
from configs.schema import Crf
from data_iter.image_files import read_image, read_label, read_size
from tools import predict
from tools.inference.averaging import Averager
from tools.inference.dense_crf import refine
from tools.inference.images import overlapped, write_overlay
from tools.inference.predictor import load
from tools.shared.probabilities import read_probabilities
from train.errors import RunError
from train.segmenter import upsample

COMMAND = Path(predict.__file__)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("predict") / "run").path


def write_image(path, hw, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), noise(*hw, seed=seed))
    return path


def error_of(capsys, *arguments):
    assert predict.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_one_image_from_another_directory(run, tmp_path):
    write_image(tmp_path / "street.png", (37, 53))
    done = subprocess.run(
        [sys.executable, COMMAND, "street.png", "--model", run],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = tmp_path / "predictions"
    assert sorted(p.name for p in results.iterdir()) == ["street.png", "street_overlay.jpg"]
    with Image.open(results / "street.png") as picture:
        assert (picture.mode, picture.size) == ("P", (53, 37))
        labels = np.array(picture)
        colours = np.array(picture.convert("RGB"))
    image = cv2.imread(str(tmp_path / "street.png"))[:, :, ::-1]
    network = load(run)
    segmenter, dataset = network.segmenter, network.dataset
    expected = segmenter.probabilities(image).argmax(0)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(colours, dataset.palette[labels])
    assert cv2.imread(str(results / "street_overlay.jpg")).shape == (37, 53, 3)
    top = int(np.bincount(labels.ravel()).argmax())
    name, share = load_dataset("camvid").train_classes[top].name, 100 * (labels == top).mean()
    lines = [line.split() for line in done.stdout.splitlines() if name in line]
    assert f"{share:.2f}" in lines[0]


def test_a_folder_of_any_sizes_and_kinds(run, tmp_path, capsys):
    sizes = {"a.png": (8, 8), "deeper/b.jpg": (41, 30), "c.jpeg": (1, 1)}
    for number, (name, hw) in enumerate(sizes.items()):
        write_image(tmp_path / "in" / name, hw, number)
    (tmp_path / "in" / "._a.png").write_bytes(b"what macOS puts into archives")
    out = tmp_path / "in" / "results"
    for _ in range(2):  # the second time, the results in the folder are not taken as images
        assert predict.main([str(tmp_path / "in"), "--model", str(run), "--out", str(out)]) == 0
    found = {p.name: Image.open(p).size[::-1] for p in out.glob("*.png")}
    assert found == {"a.png": (8, 8), "b.png": (41, 30), "c.png": (1, 1)}
    assert "3 segmented" in capsys.readouterr().out


def test_very_long_images(run, tmp_path):
    """An overlay shrinks to the limit of JPEG; maps too long for OpenCV are refused with a hint."""
    dataset = load(run).dataset
    labels = np.zeros((2, 65600), np.uint8)
    write_overlay(tmp_path / "o.jpg", np.zeros((2, 65600, 3), np.uint8), labels, dataset)
    assert read_size(tmp_path / "o.jpg") == (1, 65500)
    with pytest.raises(RunError, match="of 32767x1 cells .* into tiles .--tile"):
        upsample(np.zeros((1, 32767), np.float32), 2, (2, 65534))


def test_an_exif_rotation_is_said_and_not_applied(run, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("upright.jpg", "turned.jpg"):
        options = {"exif": exif} if name == "turned.jpg" else {}
        Image.fromarray(noise(24, 40)).save(tmp_path / name, **options)
    out = tmp_path / "out"
    assert predict.main([str(tmp_path), "--model", str(run), "--out", str(out)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "EXIF" in line]
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / 'turned.jpg'}: ")
    assert read_label(out / "turned.png").shape == (24, 40)


def test_images_that_cannot_be_predicted(run, tmp_path, capsys):
    out = tmp_path / "out"
    rest = ["--model", run, "--out", out]
    (tmp_path / "empty").mkdir()
    assert "no images" in error_of(capsys, tmp_path / "empty", *rest)
    assert "no such image" in error_of(capsys, tmp_path / "gone.png", *rest)
    assert not out.exists()
    whole = write_image(tmp_path / "cut.png", (64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cut.png" in error_of(capsys, tmp_path / "cut.png", *rest)
    assert not out.exists()
    write_image(tmp_path / "twice" / "a.png", (8, 8))
    write_image(tmp_path / "twice" / "x" / "a.jpg", (8, 8))
    assert "would both" in error_of(capsys, tmp_path / "twice", *rest)
    image = write_image(tmp_path / "own" / "a.png", (8, 8))
    before = image.read_bytes()
    assert "another --out" in error_of(capsys, image, "--model", run, "--out", image.parent)
    assert image.read_bytes() == before


def test_no_result_replaces_another_image(run, tmp_path, capsys):
    """The overlay of one image would be the next, and a link's result the image of another."""
    own = tmp_path / "own"
    for name in ("a.jpg", "a_overlay.jpg", "1.png", "2.png"):
        write_image(own / name, (8, 8))
    before = {file.name: file.read_bytes() for file in own.iterdir()}
    images = [own / "a.jpg", own / "a_overlay.jpg"]
    said = error_of(capsys, *images, "--model", run, "--out", own)
    assert f"{own / 'a_overlay.jpg'}: a result would replace it; choose another --out" in said
    (tmp_path / "links").mkdir()
    (tmp_path / "links/1.png").symlink_to(own / "2.png")
    (tmp_path / "links/2.png").symlink_to(own / "1.png")
    said = error_of(capsys, tmp_path / "links", "--model", run, "--out", own)
    assert f"{tmp_path / 'links/1.png'}: a result would replace it" in said
    assert {file.name: file.read_bytes() for file in own.iterdir()} == before


def test_results_above_the_images(run, tmp_path):
    """With --out above the images' folder, every image is still one."""
    write_image(tmp_path / "in/deep/a.png", (8, 8))
    assert (
        predict.main([str(tmp_path / "in/deep"), "--model", str(run), "--out", str(tmp_path)]) == 0
    )
    assert read_label(tmp_path / "a.png").shape == (8, 8)


def test_models_that_cannot_predict(tmp_path, capsys):
    image = write_image(tmp_path / "a.png", (8, 8))
    out = tmp_path / "out"
    (tmp_path / "none").mkdir()
    assert "not a run folder" in error_of(capsys, image, "--model", tmp_path / "none", "--out", out)
    run = make_run(tmp_path / "run")
    assert "0009" in error_of(capsys, image, "--model", run.path, "--epoch", 9, "--out", out)
    params = run.params_file(3)
    wide = make_run(tmp_path / "wide", width=0.125)
    params.write_bytes(wide.params_file(3).read_bytes())
    error = error_of(capsys, image, "--model", run.path, "--out", out)
    assert "conv1_1_3x3_s2_weight is (8, 3, 3, 3), the network has (4, 3, 3, 3)" in error
    params.write_bytes(params.read_bytes()[:1000])
    assert "whole" in error_of(capsys, image, "--model", run.path, "--out", out)
    params.unlink()
    assert "no parameters" in error_of(capsys, image, "--model", run.path, "--out", out)
    assert not out.exists()


def test_an_output_that_cannot_be_written(run, tmp_path, capsys):
    image = write_image(tmp_path / "a.png", (8, 8))
    (tmp_path / "file").write_text("in the way")
    assert "file" in error_of(capsys, image, "--model", run, "--out", tmp_path / "file")


def test_overlapping_keeps_order_and_reports_the_failing_item():
    written = []

    def read(item):
        if item == 3:
            raise ValueError("item 3")
        return item * 10

    def write(item, value, result):
        written.append((item, value, result))
        return result

    assert list(overlapped([1, 2], read, lambda v: v + 1, write)) == [11, 21]
    assert list(overlapped([], read, lambda v: v, write)) == []
    written.clear()
    with pytest.raises(ValueError, match="item 3"):
        list(overlapped([1, 2, 3, 4], read, lambda v: v + 1, write))
    assert written == [(1, 10, 11), (2, 20, 21)]


def test_parts_share_a_folder_and_resume_skips_what_is_whole(run, tmp_path, capsys):
    for number in range(5):
        write_image(tmp_path / "in" / f"{number}.png", (16, 24), number)
    out = tmp_path / "out"
    rest = [str(tmp_path / "in"), "--model", str(run), "--out", str(out)]
    assert predict.main([*rest, "--num-parts", "2", "--part-index", "1"]) == 0
    assert sorted(p.name for p in out.glob("*.png")) == ["1.png", "3.png"]
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    (out / "3.png").write_bytes((out / "3.png").read_bytes()[:60])  # an incomplete copy
    capsys.readouterr()
    assert predict.main([*rest, "--resume"]) == 0
    assert "4 segmented" in capsys.readouterr().out
    assert (out / "1.png").stat().st_mtime_ns == times["1.png"]
    assert all(read_label(out / f"{number}.png").shape == (16, 24) for number in range(5))
    assert predict.main([*rest, "--resume"]) == 0
    assert "nothing left" in capsys.readouterr().out
    assert predict.main([*rest, "--resume", "--save-probabilities"]) == 0  # now incomplete
    assert "5 segmented" in capsys.readouterr().out and len(list(out.glob("*.npz"))) == 5
    (out / "2.npz").unlink()
    assert predict.main([*rest, "--resume", "--save-probabilities"]) == 0
    assert "1 segmented" in capsys.readouterr().out
    error = error_of(capsys, *rest, "--num-parts", 2, "--part-index", 2)
    assert "--part-index 2: expected 0 to 1" in error
    assert "--num-parts 0: expected at least 1" in error_of(capsys, *rest, "--num-parts", 0)


def test_saved_probabilities_are_the_averaged_ones(run, tmp_path):
    image_file = write_image(tmp_path / "a.png", (37, 53))
    options = ["--scales", "0.5,1", "--flip", "--save-probabilities", "--out", tmp_path / "out"]
    assert predict.main([str(a) for a in (image_file, "--model", run, *options)]) == 0
    saved = read_probabilities(tmp_path / "out" / "a.npz")
    averager = Averager(load(run).segmenter, (0.5, 1.0), flip=True)
    expected = averager.probabilities(read_image(image_file))
    np.testing.assert_allclose(saved / 65535, expected, atol=1e-5)
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "a.png"), expected.argmax(0))


def test_options_that_make_no_sense(run, tmp_path, capsys):
    image = write_image(tmp_path / "a.png", (16, 16))
    rest = [image, "--model", run, "--out", tmp_path / "out"]
    assert "--scales one" in error_of(capsys, *rest, "--scales", "one")
    assert "--tile 64" in error_of(capsys, *rest, "--tile", "64")
    assert "multiples of 32" in error_of(capsys, *rest, "--tile", "64,65")
    assert not (tmp_path / "out").exists()


def test_crf_beside_the_network(run, tmp_path, capsys):
    """--crf writes the labels that refining the saved probabilities gives."""
    sizes = {"a": (24, 37), "b": (31, 26)}
    for name, hw in sizes.items():
        write_image(tmp_path / "in" / f"{name}.png", hw)
    out = tmp_path / "out"
    options = ("--model", run, "--out", out, "--crf", "--save-probabilities")
    assert predict.main([str(a) for a in (tmp_path / "in", *options)]) == 0
    assert "2 segmented" in capsys.readouterr().out
    for name in sizes:
        image = read_image(tmp_path / "in" / f"{name}.png")
        expected = refine(image, read_probabilities(out / f"{name}.npz"), Crf())
        np.testing.assert_array_equal(read_label(out / f"{name}.png"), expected)
