"""What predict.py takes besides single images: several names, lists, patterns, videos."""

import io
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from tiny_run import make_run, noise

from data_iter.errors import DataError
from data_iter.image_files import read_label
from tools import predict
from tools.inference.predictor import load
from tools.inference.sources import find_sources
from train.machine import PROJECT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("sources") / "run").path


@pytest.fixture
def pictures(tmp_path):
    for name in ("a.png", "in/b.png", "in/deep/c.jpg", "d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), noise(16, 24))
    return tmp_path


def write_film(path, count, hw=(34, 50), codec="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, hw[::-1])
    for number in range(count):
        writer.write(noise(*hw, seed=number))
    writer.release()
    return path


def read_film(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


def test_names_of_every_kind(pictures, monkeypatch):
    """Files, folders, patterns, lists, standard input and videos; other names are refused."""
    out = pictures / "out"

    def names(*sources):
        return sorted(path.name for path in find_sources([*sources], out).images)

    monkeypatch.chdir(pictures)
    assert names("a.png", "in") == ["a.png", "b.png", "c.jpg"]
    assert names("a.png", "a.png") == ["a.png"]
    assert names("*.png") == ["a.png", "d.png"]
    assert names(str(pictures / "**/*.jpg")) == ["c.jpg"]
    (pictures / "in" / "list.txt").write_text("# two\nb.png\n../a.png\n")
    assert names("in/list.txt") == ["a.png", "b.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("d.png\nin/b.png\n"))
    assert names("-") == ["b.png", "d.png"]
    film = write_film(pictures / "f.mp4", 1)
    assert find_sources([str(film), "0"], out).videos == [film, 0]
    (pictures / "empty.txt").write_text("\n")
    (pictures / "one.txt").write_text("a.png\nin/two.txt\n")
    (pictures / "in" / "two.txt").write_text("../in/../one.txt\n")
    for wrong, says in (
        ("https://example.org/a.png", "URLs are not read"),
        ("*.bmp", "no file matches"),
        ("empty.txt", "an empty list"),
        ("one.txt", r"in/\.\./in/\.\./one.txt: the list leads back to itself"),
        ("gone.mp4", "no such image or folder"),
    ):
        with pytest.raises(DataError, match=says):
            names(wrong)


def test_a_film_becomes_a_film(run, tmp_path, capsys):
    film = write_film(tmp_path / "drive.mp4", 7)
    out = tmp_path / "out"
    options = ["--model", run, "--out", out, "--every", "3", "--save-labels"]
    assert predict.main([str(a) for a in (film, *options)]) == 0
    said = capsys.readouterr().out
    assert "drive_overlay.mp4: 3 frames" in said
    assert "MPEG-4" in said or "H.264" in said
    frames = read_film(out / "drive_overlay.mp4")
    assert [frame.shape for frame in frames] == [(34, 50, 3)] * 3
    labels = sorted((out / "drive_labels").iterdir())
    assert [path.name for path in labels] == [f"{n:06d}.png" for n in range(3)]
    seen = read_film(film)[3][:, :, ::-1]
    np.testing.assert_array_equal(read_label(labels[1]), load(run).labels(seen))
    assert not list(out.glob(".*"))
    (out / "drive_labels" / "mine.png").touch()
    (out / "drive_labels" / "1000000.png").touch()
    options[options.index("3")] = "6"  # two frames: no label file of the earlier three stays
    assert predict.main([str(a) for a in (film, *options)]) == 0
    names = sorted(path.name for path in (out / "drive_labels").iterdir())
    assert names == ["000000.png", "000001.png", "mine.png"]


def test_a_film_is_not_replaced_by_a_film(run, tmp_path, capsys):
    films = [write_film(tmp_path / name, 1) for name in ("x.mp4", "x_overlay.mp4")]
    before = films[1].read_bytes()
    (tmp_path / "x_labels").mkdir()
    image = tmp_path / "x_labels" / "000000.png"
    cv2.imwrite(str(image), noise(16, 24))
    for sources, wrong in ((films, films[1]), ((films[0], image), image)):
        arguments = (*sources, "--model", run, "--out", tmp_path, "--save-labels")
        assert predict.main([str(a) for a in arguments]) == 2
        assert f"{wrong}: a result would replace it" in capsys.readouterr().err
    assert films[1].read_bytes() == before and image.is_file()


def test_films_that_cannot_be_read(run, tmp_path, capfd):
    whole = write_film(tmp_path / "cut.mp4", 5).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "none.mp4").write_bytes(b"")
    write_film(tmp_path / "zero.avi", 0, codec="MJPG")
    for name in ("cut.mp4", "none.mp4", "zero.avi"):
        out = tmp_path / "out"
        assert predict.main([str(tmp_path / name), "--model", str(run), "--out", str(out)]) == 2
        error = capfd.readouterr().err
        assert f"{name}: no frame can be read" in error
        assert error.count("\n") == 1  # FFmpeg writes no line of its own
        assert not list(out.glob("*.mp4"))


def test_of_a_truncated_film_what_can_be_read_is_kept(run, tmp_path, capsys):
    whole = write_film(tmp_path / "half.avi", 12, codec="MJPG").read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) * 3 // 5])
    readable = len(read_film(tmp_path / "half.avi"))
    assert 0 < readable < 12
    out = tmp_path / "out"
    arguments = (tmp_path / "half.avi", "--model", run, "--out", out)
    assert predict.main([str(a) for a in arguments]) == 2
    assert f"12 frames announced, {readable} readable" in capsys.readouterr().err
    assert len(read_film(out / "half_overlay.mp4")) == readable


class Camera:
    """Stands for ``cv2.VideoCapture``: three frames, the last of another size."""

    def __init__(self, number):
        assert number == 2
        self.frames = [np.full((*hw, 3), 90, np.uint8) for hw in ((34, 50), (34, 50), (20, 70))]

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def release(self):
        pass


def test_a_camera_whose_frames_change_their_size(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = (2, "--model", run, "--out", out, "--save-labels")
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", Camera)
        assert predict.main([str(a) for a in arguments]) == 0
    assert "25 a second" in capsys.readouterr().out
    assert [f.shape for f in read_film(out / "camera2_overlay.mp4")] == [(34, 50, 3)] * 3
    assert read_label(out / "camera2_labels" / "000002.png").shape == (20, 70)


def test_ctrl_c_leaves_a_film_that_plays(run, tmp_path):
    film = write_film(tmp_path / "long.avi", 3000, codec="MJPG")
    out = tmp_path / "out"
    program = [sys.executable, str(PROJECT / "tools" / "predict.py"), str(film)]
    process = subprocess.Popen(
        [*program, "--model", str(run), "--out", str(out), "--save-labels"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (out / "long_labels" / "000002.png").is_file():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert 3 <= len(read_film(out / "long_overlay.mp4")) < 3000
    assert not list(out.glob(".*"))


def test_bad_images_can_be_skipped(run, pictures, capsys):
    (pictures / "in" / "b.png").write_bytes(b"no image")
    out = pictures / "out"
    options = [str(pictures / "in"), "--model", str(run), "--out", str(out)]
    assert predict.main(options) == 2
    assert predict.main([*options, "--on-bad", "skip"]) == 1
    captured = capsys.readouterr()
    assert "1 segmented" in captured.out
    assert captured.err.splitlines()[-1].startswith(f"skipped: {pictures / 'in' / 'b.png'}: ")
    assert sorted(path.name for path in out.iterdir()) == ["c.png", "c_overlay.jpg"]


def test_a_legend_stands_below_the_overlay(run, pictures):
    out = pictures / "out"
    arguments = [pictures / "a.png", "--model", run, "--out", out, "--legend"]
    assert predict.main([str(a) for a in arguments]) == 0
    height, width = cv2.imread(str(out / "a_overlay.jpg")).shape[:2]
    assert width == 24 and height > 16 + 11 * 12  # narrow: a row for each of 11 classes
