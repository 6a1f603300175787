"""The HTML report: its data, its text, and the page in a real browser."""

import json
import re

import numpy as np
import pytest
from browser import PROGRAM, Browser
from PIL import Image

from configs.datasets import load_dataset
from tools.report import main
from tools.reporting.evaluation import Evaluation
from tools.reporting.page import choose
from tools.shared.pictures import error_map, shrink, tint

HW = (30, 44)
NAMES = ("a", "b <i>&", "c", "d")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write four CamVid-like frames of two classes; 3, 6, 9 and 12 of their 28 rows are wrong."""
    root = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        truth = np.full(HW, 3, np.uint8)
        truth[:, :20] = 8 if number % 2 else 5
        truth[:2] = 11  # ignored
        prediction = truth.copy()
        prediction[2 : 5 + 3 * number] = 1
        prediction[:2] = 0
        refined = truth.copy()
        refined[2 : 4 + 3 * number] = 1
        refined[:2] = 0
        save(root / "images" / f"{name}.png", random.integers(0, 256, (*HW, 3)).astype(np.uint8))
        save(root / "truth" / f"{name}.png", truth)
        save(root / "out" / f"{name}.png", prediction)
        save(root / "crf" / f"{name}.png", refined)
    return root


def report(folder, *more, dataset="camvid"):
    places = ("--images", folder / "images", "--ground-truth", folder / "truth")
    paths = ("--predictions", folder / "out", "--out", folder / "report.html")
    return main([str(part) for part in ("--dataset", dataset, *places, *paths, *more)])


@pytest.fixture(scope="module")
def page(folder):
    title = ("--title", "A <script>alert(1)</script> & 'more'")
    assert report(folder, "--crf", folder / "crf", *title) == 0
    return folder / "report.html"


def test_error_map_by_hand():
    image = np.full((1, 4, 3), 30, np.uint8)
    truth, prediction = np.uint8([[0, 1, 255, 255]]), np.uint8([[0, 0, 0, 255]])
    picture = error_map(image, truth, prediction, 255)
    assert picture[0, 0].tolist() == [170] * 3
    assert picture[0, 1].tolist() == [226, 40, 40]
    assert not picture[0, 2:].any()


def test_overlay_and_shrink():
    image = np.full((2, 6, 3), 100, np.uint8)
    mask = np.zeros((2, 6), bool)
    mask[1, 2:] = True
    tinted = tint(image, mask)
    assert tinted[0, 2].tolist() == [100] * 3 and tinted[1, 2].tolist() == [163, 70, 70]
    assert shrink(tinted, 3, photo=False).shape == (1, 3, 3)
    assert shrink(tinted, 6, photo=True) is tinted


def test_choice_of_frames():
    """The worst and best frames, and the worst of each class."""
    means = [0.5, 0.1, None, 0.9, 0.3, 0.7]
    frames = [
        {"mean_iou": mean, "iou": [mean, 0.2 if number == 4 else None]}
        for number, mean in enumerate(means)
    ]
    assert choose(frames, 1) == [1, 3, 4]
    assert choose(frames, 9) == [0, 1, 3, 4, 5]


def test_page_needs_nothing_else(page):
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    for word in ("http:", "https:", 'src="/', "@import", "url("):
        assert word not in text
    assert "default-src 'none'" in text
    assert sorted(file.suffix for file in page.parent.iterdir() if file.is_file()) == [".html"]


def test_the_page_has_every_measure_of_each_class(page):
    table = page.read_text().split('<table id="measures">')[1].split("</table>")[0]
    rows = [re.findall(r"<t[dh][^>]*>([^<]*)", row) for row in table.split("<tr>")[1:]]
    assert rows[0] == ["%", "IoU", "precision", "recall", "Dice", "boundary IoU"]
    name = load_dataset("camvid").train_classes[3].name
    (found,) = [row for row in rows if row[0] == name]
    # 25 + 22 + 19 + 16 of its 4 x 28 rows are found, and no other pixel is predicted as it.
    assert found[1:5] == ["73.21", "100.00", "73.21", "84.54"]
    assert 0 < float(found[5]) < 100


def test_layers_and_rows(folder):
    dataset = load_dataset("camvid")
    places = [folder / part for part in ("images", "truth", "out", "crf")]
    evaluation = Evaluation.of_folders(dataset, *places)
    layers = evaluation.layers(1)
    assert evaluation.scores["frames"][1]["name"] == NAMES[1]
    assert layers.image.shape == (*HW, 3)
    assert set(np.unique(layers.truth)) == {3, 8, 255}
    assert np.mean(layers.prediction[2:] == layers.truth[2:]) == pytest.approx(22 / 28)
    assert np.mean(layers.refined[2:] == layers.truth[2:]) == pytest.approx(23 / 28)
    rows = {row.measure: row for row in evaluation.rows()}
    right = [25, 22, 19, 16]
    assert rows["pixel accuracy"].ours == pytest.approx(100 * sum(right) / (4 * 28))
    assert rows["pixel accuracy with CRF"].ours == pytest.approx(100 * (sum(right) + 4) / (4 * 28))
    assert rows["mean IoU"].paper is None
    without = Evaluation.of_folders(dataset, *places[:3])
    assert without.layers(0).refined is None
    assert "pixel accuracy with CRF" not in [row.measure for row in without.rows()]


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (apt-get install chromium)")
def test_in_a_browser(page):
    """Sorting, classes, keys and a phone's screen work, with no error and no other request."""
    names = "JSON.stringify([...document.querySelectorAll('article')]" \
        ".filter(e => !e.hidden).map(e => e.dataset.name))"  # fmt: skip
    change = "(s => {{ s.value = {}; s.dispatchEvent(new Event('change')); }})({})"
    focused = "document.activeElement.dataset.name"
    large = "document.querySelector('#large')"
    with Browser() as browser:
        browser.open(page.as_uri())

        def shown():
            return json.loads(browser.run(names))

        assert shown() == list(NAMES[::-1])  # worst first
        browser.run(change.format("'best'", "document.querySelector('#sort')"))
        assert shown() == list(NAMES)
        assert browser.run("document.querySelector('#scores').rows.length") == 10
        assert browser.run("document.querySelector('#confusion tbody').rows.length") == 11
        loaded = "[...document.querySelectorAll('article img')].every(i => i.naturalWidth == 44)"
        assert browser.run(loaded) is True
        assert browser.run("document.images.length") == 4 * 5 + 1

        # A click on a class shows the frames that have it, by its score; the next click shows all.
        car = "document.querySelector('#classes button[data-class=\"8\"]').click()"
        browser.run(car)
        assert shown() == ["b <i>&", "d"]
        assert "car 78.57" in browser.run(
            "document.querySelector('article:not([hidden]) h3').textContent"
        )
        browser.run(car)
        assert len(shown()) == 4
        browser.run(change.format("'3'", "document.querySelector('#class')"))
        assert browser.run("document.querySelector('#count').textContent") == "4 images"

        # The keyboard.
        browser.press("j")
        assert browser.run(focused) == "a"
        for _ in range(5):
            browser.press("j")
        assert browser.run(focused) == "d"
        browser.press("k")
        assert browser.run(focused) == "c"
        browser.press("Enter")
        assert browser.run(f"{large}.open") is True
        captions = []
        for _ in range(6):
            captions.append(browser.run(f"{large}.querySelector('p').textContent"))
            browser.press("ArrowRight")
        parts = ["input", "ground truth", "prediction", "errors", "with CRF", "input"]
        assert captions == [f"{part} of c" for part in parts]
        browser.press("ArrowLeft")
        browser.press("j")
        assert browser.run(f"{large}.querySelector('p').textContent") == "input of d"
        browser.press("Escape")
        assert browser.run(f"{large}.open") is False

        # A phone: nothing is wider than the screen, and pictures are large enough to see.
        browser.resize(360, 740, mobile=True)
        assert browser.run("document.documentElement.scrollWidth") <= 360
        assert browser.run("document.querySelector('article img').clientWidth") >= 120

        assert not [event for event in browser.events if event["method"].startswith("Log.")]
        assert not [event for event in browser.events if "exception" in event["method"]]
        requests = [e["params"]["request"]["url"] for e in browser.events
                    if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
        assert {url.split(":")[0] for url in requests} <= {"file", "data"}
        assert len([url for url in requests if url.startswith("file")]) == 1


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "images/a.png").unlink(), "no image a.*"),
        (lambda f: (f / "out/a.png").unlink(), "no prediction for a"),
        (lambda f: (f / "crf/a.png").unlink(), "crf: no prediction for a"),
        (
            lambda f: save(f / "images/a.png", np.zeros((9, 8, 3), np.uint8)),
            "images/a.png: the image is 8x9, its label file 44x30",
        ),
    ],
)
def test_missing_files_are_named(folder, tmp_path, spoil, message, capsys):
    for part in ("images", "truth", "out", "crf"):
        (tmp_path / part).mkdir()
        for file in (folder / part).iterdir():
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    assert report(tmp_path, "--crf", tmp_path / "crf") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_kitti(tmp_path):
    """The page has KITTI's scores, of all frames or of those in --names."""
    random = np.random.default_rng(0)
    calibration = "P2: 10 0 5 0 0 10 0 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n" \
        "Tr_cam_to_road: 1 0 0 0 0 1 0 -2 0 0 1 0\n"  # fmt: skip
    for number in range(2):
        truth = np.zeros((9, 11, 3), np.uint8)
        truth[1:, :, 0] = 255
        truth[1:, :6, 2] = 255
        confidence = np.where(truth[..., 2] > 0, 190, 60).astype(np.uint8)
        confidence[4, :3] = 10
        image = random.integers(0, 256, truth.shape).astype(np.uint8)
        save(tmp_path / "training/image_2" / f"um_{number:06d}.png", image)
        save(tmp_path / "training/gt_image_2" / f"um_road_{number:06d}.png", truth)
        save(tmp_path / "out" / f"um_{number:06d}.png", confidence)
        save(tmp_path / "crf" / f"um_{number:06d}.png", (truth[..., 2] > 0).astype(np.uint8))
        (tmp_path / "training/calib").mkdir(exist_ok=True)
        (tmp_path / "training/calib" / f"um_{number:06d}.txt").write_text(calibration)
    (tmp_path / "one.txt").write_text("um_000001\n")
    places = ("--images", tmp_path / "training/image_2", "--ground-truth", tmp_path / "training")
    rest = (
        "--predictions",
        tmp_path / "out",
        "--crf",
        tmp_path / "crf",
        "--out",
        tmp_path / "r.html",
    )
    for names, images in (((), 2), (("--names", tmp_path / "one.txt"), 1)):
        options = ("--dataset", "kitti", *places, *rest, *names)
        assert main([str(option) for option in options]) == 0
        text = (tmp_path / "r.html").read_text()
        assert f"{images} images of kitti" in text
        assert "URBAN MaxF" in text and "95.64" in text and "um_road_000001" in text
        # 88 valid pixels, 3 wrong; all right by the CRF.
        assert "96.59" in text and "100.00" in text


def test_kitti_without_a_road_frame(tmp_path, capsys):
    save(tmp_path / "training/gt_image_2/um_lane_000000.png", np.zeros((9, 11, 3), np.uint8))
    save(tmp_path / "out/um_lane_000000.png", np.zeros((9, 11), np.uint8))
    places = ("--images", tmp_path, "--ground-truth", tmp_path / "training")
    rest = ("--predictions", tmp_path / "out", "--out", tmp_path / "r.html")
    assert main([str(option) for option in ("--dataset", "kitti", *places, *rest)]) == 2
    assert "only lanes" in capsys.readouterr().err


def test_values_that_fit_label_ids_and_train_ids(tmp_path, capsys):
    """They are refused unless --values says which."""
    labels = np.full((9, 11), 7, np.uint8)
    labels[:4] = 11
    save(tmp_path / "truth/a_000000_000019_gtFine_labelIds.png", labels)
    save(tmp_path / "out/a_000000_000019.png", labels)
    save(tmp_path / "images/a_000000_000019_leftImg8bit.png", np.zeros((9, 11, 3), np.uint8))
    assert report(tmp_path, dataset="cityscapes") == 2
    assert "say which with --values" in capsys.readouterr().err
    for values, accuracy in (("label_id", "100.00"), ("train_id", "0.00")):
        assert report(tmp_path, "--values", values, dataset="cityscapes") == 0
        text = (tmp_path / "report.html").read_text()
        assert f'<td>pixel accuracy<td class="number">{accuracy}' in text
