"""Archives for the benchmarks: what is written passes the check, and each mistake is named."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import args, evaluateImgLists
from PIL import Image
from tiny_run import make_run, noise

from configs.datasets import load_dataset
from data_iter.image_files import read_image
from tools import predict
from tools.export_submission import main
from tools.inference.predictor import load
from tools.scoring.folder import score_folder
from tools.scoring.kitti_bev import read_calibration, to_bev
from tools.shared.probabilities import write_probabilities

HW = (6, 10)
CALIBRATION = """P2: 10 0 5 0 0 10 0 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_cam_to_road: 1 0 0 0 0 1 0 -2 0 0 1 0
"""


def save(path, array, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def png(array, palette=None, kind="PNG"):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette)
    image.save(buffer, kind)
    return buffer.getvalue()


def export(dataset, *options):
    return main(["--dataset", dataset, *map(str, options)])


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


@pytest.fixture
def city(tmp_path):
    """Two test frames, and their predictions as train ids."""
    random = np.random.default_rng(1)
    for name in ("berlin_000000_000019", "munich_000003_000019"):
        folder = tmp_path / "data/leftImg8bit/test" / name.split("_")[0]
        save(folder / f"{name}_leftImg8bit.png", np.zeros((*HW, 3), np.uint8))
        save(tmp_path / "out" / f"{name}.png", random.integers(0, 19, HW).astype(np.uint8))
    return tmp_path


def test_cityscapes_from_train_ids(city, capsys):
    out = city / "c.zip"
    assert (
        export(
            "cityscapes", "--predictions", city / "out", "--data-root", city / "data", "--out", out
        )
        == 0
    )
    assert export("cityscapes", "--check", out, "--data-root", city / "data") == 0
    assert "nothing is wrong" in capsys.readouterr().out
    members = read_zip(out)
    assert sorted(members) == ["berlin_000000_000019.png", "munich_000003_000019.png"]
    lut = load_dataset("cityscapes").train_to_label
    for name, content in members.items():
        image = Image.open(io.BytesIO(content))
        assert image.mode == "L"
        np.testing.assert_array_equal(
            np.array(image), lut[np.array(Image.open(city / "out" / name))]
        )
    assert export("cityscapes", "--check", out) == 1  # checked against the official test set
    printed = capsys.readouterr()
    assert "berlin: 1 frames, the test set has 544" in printed.out
    assert "mainz: 0 frames, the test set has 298" in printed.out
    assert "10x6, expected 2048x1024" in printed.out
    assert printed.err.count("\n") == 1


def test_the_official_scorer_reads_the_exported_folder(city, tmp_path):
    random = np.random.default_rng(2)
    truths = []
    for name in ("berlin_000000_000019", "munich_000003_000019"):
        truths.append(tmp_path / "gt" / f"{name}_gtFine_labelIds.png")
        truth = random.choice([7, 11, 26, 0], HW)
        save(truths[-1], truth.astype(np.uint8))
        save(
            tmp_path / "gt" / f"{name}_gtFine_instanceIds.png",
            (truth * 1000 * (truth == 26)).astype(np.uint16),
        )
    out = city / "c.zip"
    assert (
        export(
            "cityscapes", "--predictions", city / "out", "--data-root", city / "data", "--out", out
        )
        == 0
    )
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "server")
    args.quiet, args.JSONOutput = True, False
    predictions = sorted(map(str, (tmp_path / "server").glob("*.png")))
    official = evaluateImgLists(predictions, sorted(map(str, truths)), args)
    ours = score_folder(load_dataset("cityscapes"), tmp_path / "gt", city / "out")
    assert ours["mean_iou"] == official["averageScoreClasses"]


def test_the_same_predictions_give_the_same_bytes(city):
    for name in ("a.zip", "b.zip"):
        assert (
            export(
                "cityscapes",
                "--predictions",
                city / "out",
                "--data-root",
                city / "data",
                "--out",
                city / name,
            )
            == 0
        )
    assert (city / "a.zip").read_bytes() == (city / "b.zip").read_bytes()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda c: (c / "out/berlin_000000_000019.png").unlink(), "missing: berlin_000000_000019"),
        (
            lambda c: save(c / "out/bonn_000000_000019.png", np.zeros(HW, np.uint8)),
            "not in the test set: bonn_000000_000019",
        ),
        (
            lambda c: save(c / "out/berlin_000000_000019.png", np.zeros((5, 10), np.uint8)),
            "berlin_000000_000019.png: 10x5, expected 10x6 (width x height)",
        ),
        (
            lambda c: save(c / "out/berlin_000000_000019.png", np.full(HW, 255, np.uint8)),
            "berlin_000000_000019.png: predicted value 255 at 60 pixels",
        ),
    ],
)
def test_nothing_is_left_of_a_wrong_submission(city, spoil, message, capsys):
    spoil(city)
    out = city / "c.zip"
    assert (
        export(
            "cityscapes", "--predictions", city / "out", "--data-root", city / "data", "--out", out
        )
        == 2
    )
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert sorted(file.name for file in city.iterdir()) == ["data", "out"]


@pytest.mark.parametrize("source", ["predictions", "model"])
def test_names_are_looked_at_before_the_work(city, monkeypatch, capsys, source):
    """Wrong names are reported before a prediction is read or a network is loaded."""
    (city / "out/berlin_000000_000019.png").rename(city / "out/odd.png")
    for name in ("read_label", "model_pictures"):
        monkeypatch.setattr(f"tools.export_submission.{name}", None)
    options = ["--predictions", city / "out"]
    if source == "model":
        options = ["--model", city / "run"]
        monkeypatch.setattr(
            "tools.export_submission.expected_sizes", lambda *of: {"munich_000003_000019": HW}
        )
    command = ["cityscapes", *options, "--data-root", city / "data", "--out", city / "c.zip"]
    assert export(*command) == 2
    printed = capsys.readouterr()
    if source == "model":
        assert printed.out == "not in the test set: berlin_000000_000019\n"
    else:
        assert printed.out.splitlines() == [
            "not named like berlin_000000_000019.png: odd.png", "missing: berlin_000000_000019",
        ]  # fmt: skip
    assert "c.zip: not written: " in printed.err and printed.err.count("\n") == 1
    command[-1] = city / "c.tar"
    assert export(*command) == 2
    assert "expected a name that ends in .zip" in capsys.readouterr().err


def test_check_says_everything_that_is_wrong(city, capsys):
    good = png(np.full(HW, 7, np.uint8))
    write_zip(
        city / "c.zip",
        [
            ("berlin/berlin_000000_000019_x.png", good[:40]),
            ("again/berlin_000000_000019.png", good),
            ("munich_000003_000019.png", png(np.full(HW, 200, np.uint8))),
            ("bonn_000000_000019.png", png(np.zeros((*HW, 3), np.uint8))),
            ("bonn_000000_000020.png", png(np.full(HW, 7, np.uint8), kind="BMP")),
            ("__MACOSX/x", b""),
        ],
    )
    assert export("cityscapes", "--check", city / "c.zip", "--data-root", city / "data") == 1
    lines = capsys.readouterr().out.splitlines()
    for expected in (
        "berlin/berlin_000000_000019_x.png: cannot be read",
        "again/berlin_000000_000019.png: berlin/berlin_000000_000019_x.png is of the same frame",
        "munich_000003_000019.png: values 200, expected 0-33",
        "bonn_000000_000019.png: mode RGB, expected L (8-bit grey)",
        "bonn_000000_000020.png: a BMP, expected a PNG",
        "__MACOSX/x: not expected in the archive",
        "not in the test set: bonn_000000_000019, bonn_000000_000020",
    ):
        assert any(line.startswith(expected) for line in lines), expected
    assert len(lines) == 7


def test_check_tells_train_ids(city, capsys):
    names = ("berlin_000000_000019.png", "munich_000003_000019.png")
    content = png(np.arange(60, dtype=np.uint8).reshape(HW) % 19)
    write_zip(city / "c.zip", [(name, content) for name in names])
    assert export("cityscapes", "--check", city / "c.zip", "--data-root", city / "data") == 1
    assert "all values are 0-18: train ids instead of label ids?" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_archive(tmp_path, content, capsys):
    """It is refused with one line."""
    for dataset in ("cityscapes", "voc"):
        if content is not None:
            (tmp_path / "x").write_bytes(content)
        assert export(dataset, "--check", tmp_path / "x") == 2
        error = capsys.readouterr().err
        assert f"error: {tmp_path / 'x'}: " in error and error.count("\n") == 1


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_one_of_the_problems(city, method, capsys):
    with zipfile.ZipFile(city / "c.zip", "w", method) as archive:
        for name in ("berlin_000000_000019.png", "munich_000003_000019.png"):
            archive.writestr(name, png(np.full(HW, 7, np.uint8)))
        middle = archive.infolist()[0].compress_size // 2 + 30 + len("berlin_000000_000019.png")
    content = bytearray((city / "c.zip").read_bytes())
    content[middle] ^= 255
    (city / "c.zip").write_bytes(content)
    assert export("cityscapes", "--check", city / "c.zip", "--data-root", city / "data") == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("berlin_000000_000019.png: cannot be read (")
    assert printed.out.count("\n") == printed.err.count("\n") == 1


def test_damaged_archives_are_named(tmp_path, capsys):
    random = np.random.default_rng(0)
    with tarfile.open(tmp_path / "r.tar", "w:gz") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 500
            archive.addfile(info, io.BytesIO(random.bytes(500)))
    write_zip(tmp_path / "c.zip", [("a.png", b"x" * 50)])
    for file, dataset in (("r.tar", "voc"), ("c.zip", "cityscapes")):
        whole = (tmp_path / file).read_bytes()
        places = random.integers(10, len(whole), 60)
        for place in places:
            content = bytearray(whole)
            content[place] ^= 170
            (tmp_path / file).write_bytes(content)
            assert export(dataset, "--check", tmp_path / file) in (1, 2)  # a member, or the file
            assert capsys.readouterr().err.startswith(f"error: {tmp_path / file}: ")


def test_paths_that_lead_out_of_the_archive(city, voc, capsys):
    """The check reports each of them as a member that is not expected."""
    good = png(np.full(HW, 7, np.uint8))
    names = ["../berlin_000000_000019.png", "/berlin_000000_000019.png", "a/../munich_3_19.png"]
    write_zip(city / "c.zip", [(name, good) for name in names])
    assert export("cityscapes", "--check", city / "c.zip", "--data-root", city / "data") == 1
    printed = capsys.readouterr().out
    assert [line.split(": not expected")[0] for line in printed.splitlines()[:-1]] == names
    folder = "results/VOC2012/Segmentation/comp6_test_cls"
    names = [f"../{folder}/2008_000006.png", f"x/../{folder}/2008_000006.png", f"/{folder}/a.png"]
    with tarfile.open(voc / "r.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    assert export("voc", "--check", voc / "r.tar", "--data-root", voc / "VOC2012") == 1
    printed = capsys.readouterr().out
    assert [line.split(": not expected")[0] for line in printed.splitlines()[:-1]] == names


@pytest.fixture
def kitti(tmp_path):
    root = tmp_path / "data_road"
    random = np.random.default_rng(4)
    for name in ("um_000000", "umm_000000", "uu_000000"):
        save(root / "testing/image_2" / f"{name}.png", np.zeros((9, 11, 3), np.uint8))
        (root / "testing/calib").mkdir(exist_ok=True)
        (root / "testing/calib" / f"{name}.txt").write_text(CALIBRATION)
        save(tmp_path / "out" / f"{name}.png", random.integers(0, 256, (9, 11)).astype(np.uint8))
    return tmp_path


def test_kitti_from_perspective_maps(kitti):
    out = kitti / "k.zip"
    source = ("--predictions", kitti / "out", "--data-root", kitti / "data_road")
    assert export("kitti", *source, "--out", out) == 0
    assert export("kitti", "--check", out, "--data-root", kitti / "data_road") == 0
    members = read_zip(out)
    assert sorted(members) == [f"{c}_road_000000.png" for c in ("um", "umm", "uu")]
    image = Image.open(io.BytesIO(members["umm_road_000000.png"]))
    assert (image.mode, image.size) == ("L", (400, 800))
    perspective = np.array(Image.open(kitti / "out/umm_000000.png"))
    matrix = read_calibration(kitti / "data_road/testing/calib/umm_000000.txt")
    np.testing.assert_array_equal(np.array(image), to_bev(perspective, matrix))
    assert np.array(image).any()


def test_kitti_from_probability_and_birds_eye_maps(kitti):
    (kitti / "out/uu_000000.png").unlink()
    write_probabilities(
        kitti / "out/uu_000000.npz", np.stack([np.full((9, 11), v) for v in (0.8, 0.2)])
    )
    (kitti / "out/um_000000.png").unlink()
    save(kitti / "out/um_road_000000.png", np.full((800, 400), 77, np.uint8))
    out = kitti / "k.zip"
    source = ("--predictions", kitti / "out", "--data-root", kitti / "data_road")
    assert export("kitti", *source, "--out", out) == 0
    members = read_zip(out)
    assert set(np.unique(Image.open(io.BytesIO(members["uu_road_000000.png"])))) == {0, 51}
    assert set(np.unique(Image.open(io.BytesIO(members["um_road_000000.png"])))) == {77}


def test_kitti_against_the_official_test_set(tmp_path, capsys):
    counts = {"um_road": 96, "umm_road": 94, "uu_road": 100}
    content = png(np.full((800, 400), 7, np.uint8))
    names = [f"{c}_{number:06d}.png" for c, count in counts.items() for number in range(count)]
    write_zip(tmp_path / "k.zip", [(name, content) for name in names])
    assert export("kitti", "--check", tmp_path / "k.zip") == 0
    write_zip(
        tmp_path / "k.zip",
        [(name, content) for name in names[1:]]
        + [("um_lane_000000.png", content), ("sub/um_road_000000.png", content)]
        + [("uu_road_000100.png", png(np.full((400, 800), 7, np.uint8)))],
    )
    capsys.readouterr()
    assert export("kitti", "--check", tmp_path / "k.zip") == 1
    printed = capsys.readouterr().out
    assert "sub/um_road_000000.png: not expected" in printed
    assert "uu_road_000100.png: 800x400, expected 400x800" in printed
    assert "missing: um_lane_000001, um_lane_000002" in printed and "and 76 more" in printed
    assert "not in the test set: uu_road_000100" in printed


@pytest.mark.parametrize(
    "spoil, options, message",
    [
        (lambda k: None, [], "a perspective map; --data-root is needed"),
        (
            lambda k: save(k / "out/um_000000.png", np.zeros((5, 7), np.uint8)),
            ["--data-root", "data_road"],
            "um_000000.png: the prediction is 7x5, its image 11x9",
        ),
        (
            lambda k: [save(f, np.ones((9, 11), np.uint8)) for f in (k / "out").iterdir()],
            ["--data-root", "data_road"],
            "all values are 0 or 1: train ids instead of confidences",
        ),
        (
            lambda k: write_probabilities(k / "out/uu_000000.npz", np.full((19, 9, 11), 0.05)),
            ["--data-root", "data_road"],
            "uu_000000.npz: it has 19 classes, data set kitti 2",
        ),
    ],
)
def test_wrong_kitti_predictions(kitti, spoil, options, message, capsys, monkeypatch):
    spoil(kitti)
    monkeypatch.chdir(kitti)
    assert export("kitti", "--predictions", "out", *options, "--out", "k.zip") == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert not (kitti / "k.zip").exists()


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/test.txt").write_text("2008_000006\n2008_000011\n")
    for number, name in enumerate(("2008_000006", "2008_000011")):
        save(root / "JPEGImages" / f"{name}.jpg", np.zeros((7 + number, 9, 3), np.uint8))
        save(
            tmp_path / "out" / f"{name}.png",
            np.arange(63 + 9 * number, dtype=np.uint8).reshape(-1, 9) % 21,
        )
    return tmp_path


@pytest.mark.parametrize("comp", ["comp5", "comp6"])
def test_voc(voc, comp):
    """The archive passes its check and holds the predicted labels with VOC's palette."""
    out = voc / "results.tar"
    options = ("--data-root", voc / "VOC2012", "--comp", comp)
    assert export("voc", "--predictions", voc / "out", "--out", out, *options) == 0
    assert export("voc", "--check", out, *options) == 0
    folder = f"results/VOC2012/Segmentation/{comp}_test_cls"
    with tarfile.open(out) as archive:
        assert archive.getnames() == [f"{folder}/2008_000006.png", f"{folder}/2008_000011.png"]
        image = Image.open(io.BytesIO(archive.extractfile(archive.getnames()[1]).read()))
    assert image.mode == "P"
    np.testing.assert_array_equal(
        np.array(image), np.array(Image.open(voc / "out/2008_000011.png"))
    )
    assert image.getpalette()[45:48] == [192, 128, 128]  # person


def test_wrong_voc_archives(voc, capsys):
    palette = load_dataset("voc").palette.copy()
    good = png(np.full((7, 9), 15, np.uint8), palette.tobytes())
    palette[15] = 1
    folder = "results/VOC2012/Segmentation/comp6_test_cls"
    members = {
        f"{folder}/2008_000006.png": png(np.full((7, 9), 15, np.uint8), palette.tobytes()),
        f"./{folder}/2008_000011.png": png(np.full((8, 9), 21, np.uint8), palette.tobytes()),
        "results/VOC2012/Segmentation/comp5_test_cls/2008_000006.png": good,
        f"{folder}/2008_000007.png": png(np.full((8, 9), 2, np.uint8)),
    }
    with tarfile.open(voc / "r.tar", "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(f"{folder}/2008_000008.png")
        link.type, link.linkname = tarfile.SYMTYPE, "2008_000006.png"
        archive.addfile(link)
    assert export("voc", "--check", voc / "r.tar", "--data-root", voc / "VOC2012") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{folder}/2008_000006.png: its palette is not the VOC colour map",
        f"{folder}/2008_000011.png: values 21, expected 0-20",
        "results/VOC2012/Segmentation/comp5_test_cls/2008_000006.png: not expected in the archive; "
        f"pictures are named like {folder}/2008_000006.png",
        f"{folder}/2008_000007.png: mode L, expected P (a palette)",
        f"{folder}/2008_000008.png: cannot be read (a link or device, expected a file)",
        "not in the test set: 2008_000007, 2008_000008",
    ]
    assert export("voc", "--check", voc / "r.tar") == 1
    assert "4 pictures, the test set has 1456" in capsys.readouterr().out


def test_the_name_says_the_archive(voc, capsys):
    assert export("voc", "--predictions", voc / "out", "--out", voc / "r.zip") == 2
    assert "expected a name that ends in .tar" in capsys.readouterr().err


def noisy_images(folder, names):
    for number, name in enumerate(names):
        save(folder / name, noise(26, 38, number))


def test_cityscapes_from_a_model(tmp_path, capsys):
    run = make_run(tmp_path / "run", "cityscapes").path
    names = [f"bonn_00000{number}_000019" for number in range(2)]
    images = tmp_path / "data/leftImg8bit/test/bonn"
    noisy_images(images, [f"{name}_leftImg8bit.png" for name in names])
    out = tmp_path / "c.zip"
    assert export("cityscapes", "--model", run, "--data-root", tmp_path / "data", "--out", out) == 0
    network = load(run)
    segmenter, dataset = network.segmenter, network.dataset
    for name in names:
        labels = segmenter.labels(read_image(images / f"{name}_leftImg8bit.png"))
        picture = Image.open(io.BytesIO(read_zip(out)[f"{name}.png"]))
        np.testing.assert_array_equal(np.array(picture), dataset.train_to_label[labels])
    assert export("voc", "--model", run, "--data-root", tmp_path, "--out", tmp_path / "v.tar") == 2
    assert export("voc", "--model", run, "--out", tmp_path / "v.tar") == 2
    assert "--model needs --data-root" in capsys.readouterr().err


def test_kitti_from_a_model(kitti, capsys):
    run = make_run(kitti / "run", "kitti").path
    images = kitti / "data_road/testing/image_2"
    noisy_images(images, [f"{name}_000000.png" for name in ("um", "umm", "uu")])
    source = ("--model", run, "--data-root", kitti / "data_road")
    assert export("kitti", *source, "--out", kitti / "k.zip") == 0
    segmenter = load(run).segmenter
    road = segmenter.probabilities(read_image(images / "umm_000000.png"))[1]
    matrix = read_calibration(kitti / "data_road/testing/calib/umm_000000.txt")
    picture = Image.open(io.BytesIO(read_zip(kitti / "k.zip")["umm_road_000000.png"]))
    np.testing.assert_array_equal(np.array(picture), to_bev(np.rint(road * 255), matrix))
    other = make_run(kitti / "other", "voc").path
    source = ("--model", other, "--data-root", kitti / "data_road")
    assert export("kitti", *source, "--out", kitti / "l.zip") == 2
    assert "its classes are those of voc, not of kitti" in capsys.readouterr().err


def test_voc_from_a_model_as_predict_gives_it(voc, tmp_path):
    """Images that are much larger than those of training are seen at their size."""
    run = make_run(tmp_path / "run", "voc")
    run.note_long_side(16)
    names = ("2008_000006", "2008_000011")
    noisy_images(voc / "VOC2012/JPEGImages", [f"{name}.jpg" for name in names])  # 38 pixels wide
    images = [voc / f"VOC2012/JPEGImages/{name}.jpg" for name in names]
    out = tmp_path / "predicted"
    assert predict.main([*map(str, images), "--model", str(run.path), "--out", str(out)]) == 0
    source = ("--model", run.path, "--data-root", voc / "VOC2012")
    assert export("voc", *source, "--out", voc / "v.tar") == 0
    with tarfile.open(voc / "v.tar") as archive:
        for name, member in zip(names, archive.getnames()):
            picture = np.array(Image.open(io.BytesIO(archive.extractfile(member).read())))
            np.testing.assert_array_equal(picture, np.array(Image.open(out / f"{name}.png")))
            image = read_image(voc / f"VOC2012/JPEGImages/{name}.jpg")
            assert (picture != load(run.path, long_side=None).labels(image)).any()


def test_voc_names_of_the_official_test_set(tmp_path, capsys):
    folder = "results/VOC2012/Segmentation/comp6_test_cls"
    with tarfile.open(tmp_path / "r.tar", "w") as archive:
        for name in ("2008_000006", "2008_6", "photo"):
            archive.addfile(tarfile.TarInfo(f"{folder}/{name}.png"))
    assert export("voc", "--check", tmp_path / "r.tar") == 1
    printed = capsys.readouterr().out
    assert "no names of VOC2012 images: 2008_6, photo\n3 pictures, the test set has 1456" in printed
