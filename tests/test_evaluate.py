"""Scores against the official cityscapesScripts and against counts made by hand."""

import json

import numpy as np
import pytest
from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import args, evaluateImgLists
from PIL import Image

from configs.datasets import load_dataset
from tools.evaluate import main
from tools.scoring.folder import score_folder

CITYSCAPES = load_dataset("cityscapes")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def official(predictions, truths):
    args.quiet, args.JSONOutput = True, False
    return evaluateImgLists(list(map(str, predictions)), list(map(str, truths)), args)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Write five frames of 40x70 pixels with instances, and predictions in label and train ids."""
    root = tmp_path_factory.mktemp("city")
    random = np.random.default_rng(5)
    for frame in range(5):
        name = f"{'ab'[frame % 2]}town_000000_{frame:06d}"
        truth = random.choice([0, 1, 5, 7, 8, 9, 11, 17, 21, 23, 24, 25, 26, 27, 29, 33], (8, 10))
        truth = truth.repeat(5, axis=0).repeat(7, axis=1)
        instances = np.where(
            truth >= 24,
            truth * 1000 + random.integers(0, 3, (8, 10)).repeat(5, 0).repeat(7, 1),
            truth,
        )
        instances[truth == 26] = np.where(
            random.random((truth == 26).sum()) < 0.2, 26, instances[truth == 26]
        )
        wrong = random.choice([7, 8, 11, 13, 20, 21, 23, 24, 25, 26, 28, 31, 33], truth.shape)
        scored = (CITYSCAPES.label_lut[truth] != 255) & (random.random(truth.shape) < 0.7)
        prediction = np.where(scored, truth, wrong).astype(np.uint8)
        folder = root / "gtFine" / "val" / name.split("_")[0]
        save(folder / f"{name}_gtFine_labelIds.png", truth.astype(np.uint8))
        save(folder / f"{name}_gtFine_instanceIds.png", instances.astype(np.uint16))
        save(root / "label_id" / name.split("_")[0] / f"{name}_mynet.png", prediction)
        train_ids = CITYSCAPES.label_lut[prediction].astype(np.uint8)
        save(root / "train_id" / f"{name}.png", train_ids)
    return root


@pytest.fixture(scope="module")
def official_scores(city):
    truths = sorted((city / "gtFine/val").rglob("*_labelIds.png"), key=lambda file: file.name)
    predictions = sorted((city / "label_id").rglob("*.png"), key=lambda file: file.name)
    return official(predictions, truths)


@pytest.mark.parametrize("values", ["label_id", "train_id"])
def test_cityscapes_scores_are_the_official_ones(city, official_scores, values):
    ours = score_folder(CITYSCAPES, city / "gtFine", city / values)
    assert (ours["values"], ours["images"]) == (values, 5)
    none = {None: float("nan")}
    for row in ours["classes"]:
        for key, scores in (("iou", "classScores"), ("iiou", "classInstScores")):
            np.testing.assert_equal(
                none.get(row[key], row[key]), official_scores[scores][row["name"]]
            )
    assert len(ours["categories"]) == 7
    for row in ours["categories"]:
        expected = official_scores["categoryScores"][row["name"]]
        np.testing.assert_equal(row["iou"], expected)
        if values == "label_id":  # train ids have no caravan, which is a vehicle too
            expected = official_scores["categoryInstScores"][row["name"]]
            np.testing.assert_equal(none.get(row["iiou"], row["iiou"]), expected)
    assert ours["mean_iou"] == official_scores["averageScoreClasses"]
    assert ours["mean_iiou"] == official_scores["averageScoreInstClasses"]
    assert ours["mean_category_iou"] == official_scores["averageScoreCategories"]
    assert ours["mean_category_iiou"] == official_scores["averageScoreInstCategories"]


def test_predicting_a_label_that_is_not_scored_is_a_miss(tmp_path):
    truth = np.full((4, 6), 26, np.uint8)
    truth[0] = 0
    prediction = np.full((4, 6), 26, np.uint8)
    prediction[:2] = 29  # caravan; the first row is not counted
    files = [
        save(tmp_path / "gt" / "a_0_1_gtFine_labelIds.png", truth),
        save(tmp_path / "out" / "a_0_1.png", prediction),
    ]
    save(
        tmp_path / "gt" / "a_0_1_gtFine_instanceIds.png",
        np.where(truth == 26, 26007, 0).astype(np.uint16),
    )
    ours = score_folder(CITYSCAPES, tmp_path / "gt", tmp_path / "out")
    theirs = official([files[1]], [files[0]])
    assert ours["classes"][13]["iou"] == theirs["classScores"]["car"] == 12 / 18
    assert ours["categories"][-1]["iiou"] == theirs["categoryInstScores"]["vehicle"] == 1
    assert ours["confusion"][13][19] == 6
    assert ours["pixel_accuracy"] == 12 / 18


def test_a_label_that_is_not_scored_can_be_a_false_positive_of_its_category(tmp_path):
    truth = np.full((4, 6), 7, np.uint8)
    truth[:2] = 26
    prediction = truth.copy()
    prediction[3, :5] = 29  # caravan where the truth is road, so a wrong vehicle
    files = [
        save(tmp_path / "gt" / "a_0_1_gtFine_labelIds.png", truth),
        save(tmp_path / "out" / "a_0_1.png", prediction),
    ]
    instances = np.where(truth == 26, 26007, 7).astype(np.uint16)
    save(tmp_path / "gt" / "a_0_1_gtFine_instanceIds.png", instances)
    ours = score_folder(CITYSCAPES, tmp_path / "gt", tmp_path / "out")
    theirs = official([files[1]], [files[0]])
    size = 12794.0202738185  # an average car: the weight of the one car's 12 pixels
    assert ours["categories"][-1]["iiou"] == pytest.approx(size / (size + 5), abs=1e-12)
    assert ours["categories"][-1]["iiou"] == theirs["categoryInstScores"]["vehicle"]
    assert ours["classes"][13]["iiou"] == theirs["classInstScores"]["car"] == 1


def test_instance_ids_cut_to_8_bits_are_refused(city, tmp_path):
    """They hold no id above 1000: the scores would say that there are no instances."""
    name = "atown_000000_000000_gtFine"
    for kind in ("labelIds", "instanceIds"):
        pixels = np.array(Image.open(city / f"gtFine/val/atown/{name}_{kind}.png"))
        save(tmp_path / f"{name}_{kind}.png", np.minimum(pixels, 255).astype(np.uint8))
    message = rf"{name}_instanceIds\.png: expected a 16-bit PNG .*, found \(40, 70\) of uint8"
    with pytest.raises(ValueError, match=message):
        score_folder(CITYSCAPES, tmp_path, city / "label_id/atown", names=["atown_000000_000000"])


def test_without_instance_files_there_is_no_iiou(city, tmp_path):
    for file in (city / "gtFine").rglob("*_labelIds.png"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    scores = score_folder(CITYSCAPES, tmp_path, city / "label_id")
    assert "mean_iiou" not in scores and "iiou" not in scores["classes"][13]


VOC_TRUTH = np.array([[0, 0, 0, 255], [15, 15, 2, 255], [0, 0, 2, 2]], np.uint8)
VOC_PREDICTION = np.array([[0, 0, 15, 1], [15, 0, 2, 20], [0, 0, 2, 0]], np.uint8)


@pytest.fixture
def voc(tmp_path):
    save(tmp_path / "gt" / "2007_000001.png", VOC_TRUTH)
    save(tmp_path / "out" / "2007_000001.png", VOC_PREDICTION)
    return tmp_path


def test_voc_by_hand(voc):
    scores = score_folder(load_dataset("voc"), voc / "gt", voc / "out")
    ious = {row["name"]: row["iou"] for row in scores["classes"] if row["iou"] is not None}
    # background: 4 hits, 1 missed, 2 wrong; person: 1, 1, 1; bicycle: 2, 1, 0.
    assert ious == {"background": 4 / 7, "person": 1 / 3, "bicycle": 2 / 3}
    assert scores["mean_iou"] == pytest.approx((4 / 7 + 1 / 3 + 2 / 3) / 3)
    assert (scores["valid_pixels"], scores["pixel_accuracy"]) == (10, 7 / 10)
    assert scores["frames"][0]["mean_iou"] == scores["mean_iou"]


def test_command_prints_and_writes_json(voc, capsys):
    paths = ["--ground-truth", str(voc / "gt"), "--predictions", str(voc / "out")]
    assert main(["--dataset", "voc", *paths, "--json", str(voc / "s.json")]) == 0
    out = capsys.readouterr().out
    assert "mIoU 52.38 %" in out and "pixel accuracy 70.00 %" in out
    assert "officially this mean is NaN" in out and "aeroplane" in out
    confusion = out[out.index("where the pixels") :].splitlines()
    numbers = next(line for line in confusion if line.endswith("20  none"))
    for number, name in ((1, "aeroplane"), (20, "tvmonitor")):
        column = numbers.index(f"{number:>4}  " if number == 20 else f"{number:>4}") + 3
        above = confusion[1 : confusion.index(numbers)]
        assert "".join(line[column : column + 1] for line in above).strip() == name
    assert json.loads((voc / "s.json").read_text())["images"] == 1


def test_a_class_that_is_only_predicted_scores_0(voc, capsys):
    prediction = VOC_PREDICTION.copy()
    prediction[0, 0] = 7
    save(voc / "out" / "2007_000001.png", prediction)
    paths = ["--ground-truth", str(voc / "gt"), "--predictions", str(voc / "out")]
    assert main(["--dataset", "voc", *paths]) == 0
    assert "predicted, counted as IoU 0: car" in capsys.readouterr().out


def test_a_palette_png_counts_by_index(voc):
    image = Image.fromarray(VOC_PREDICTION)
    image.putpalette(load_dataset("voc").palette.tobytes())
    image.save(voc / "out" / "2007_000001.png")
    assert score_folder(load_dataset("voc"), voc / "gt", voc / "out")["pixel_accuracy"] == 0.7


def test_names_select_frames(voc, capsys):
    save(voc / "gt" / "b.png", VOC_TRUTH)
    save(voc / "out" / "b.png", VOC_TRUTH * (VOC_TRUTH < 255))
    save(voc / "out" / "other.png", VOC_TRUTH)  # not in the list, so it is no error
    (voc / "val.txt").write_text("b\n")
    paths = ["--ground-truth", str(voc / "gt"), "--predictions", str(voc / "out")]
    assert main(["--dataset", "voc", *paths, "--names", str(voc / "val.txt")]) == 0
    assert "pixel accuracy 100.00 %" in capsys.readouterr().out


def spoil_voc(voc, how):
    file = voc / "out" / "2007_000001.png"
    if how == "missing":
        file.unlink()
    elif how == "extra":
        save(voc / "out" / "more.png", VOC_PREDICTION)
    elif how == "size":
        save(file, VOC_PREDICTION[:, :3])
    elif how == "range":
        save(file, VOC_PREDICTION + 5)
    elif how == "ignore":
        save(file, VOC_TRUTH)
    elif how == "colour":
        save(file, np.zeros((3, 4, 3), np.uint8))
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:60])
    elif how == "truth":
        save(voc / "gt" / "2007_000001.png", VOC_TRUTH - 100)


@pytest.mark.parametrize(
    "how, message",
    [
        ("missing", "no prediction for 2007_000001"),
        ("extra", "more.png: a prediction without a label file"),
        ("size", "2007_000001.png: the prediction is 3x3, its label file 4x3"),
        ("range", "2007_000001.png: predicted value 25 at 1 pixels; expected 0-20"),
        ("ignore", "2007_000001.png: predicted value 255 at 2 pixels; expected 0-20"),
        ("colour", "2007_000001.png: found 3 channels"),
        ("truncated", "2007_000001.png: not a whole"),
        ("truth", "gt/2007_000001.png: label values outside the class table"),
    ],
)
def test_a_bad_file_is_named(voc, how, message, capsys):
    spoil_voc(voc, how)
    paths = ["--ground-truth", str(voc / "gt"), "--predictions", str(voc / "out")]
    assert main(["--dataset", "voc", *paths, "--json", str(voc / "s.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (voc / "s.json").exists()


def cityscapes_frame(root, number, prediction):
    truth = np.full((2, 3), 7, np.uint8)
    save(root / "gt" / f"a_0_{number}_gtFine_labelIds.png", truth)
    save(root / "out" / f"a_0_{number}.png", np.uint8(prediction).reshape(2, 3))


@pytest.mark.parametrize(
    "predictions, values, kind",
    [
        ([[7, 8, 7, 8, 7, 26]], None, "label_id"),
        ([[0, 8, 7, 8, 7, 5]], None, "train_id"),
        ([[7, 8, 7, 8, 7, 7], [7, 8, 7, 8, 7, 26]], None, "label_id"),
        ([[7, 8, 7, 8, 7, 7], [0, 0, 0, 0, 0, 8]], None, "train_id"),
        ([[7, 8, 7, 8, 7, 7]], "label_id", "label_id"),
        ([[0, 8, 7, 8, 7, 7], [7, 7, 7, 7, 7, 26]], "label_id", "label_id"),
        ([[7, 8, 7, 8, 11, 19]], None, "label_id"),
        ([[0, 1, 2, 8, 7, 19]], "label_id", "label_id"),
    ],
)
def test_label_ids_and_train_ids_are_told_apart(tmp_path, predictions, values, kind):
    for number, prediction in enumerate(predictions):
        cityscapes_frame(tmp_path, number, prediction)
    scores = score_folder(CITYSCAPES, tmp_path / "gt", tmp_path / "out", values=values)
    assert scores["values"] == kind


@pytest.mark.parametrize(
    "predictions, values, message",
    [
        ([[7, 8, 7, 8, 7, 7]], None, "fit label ids and train ids; say which with --values"),
        ([[0, 1, 2, 8, 7, 7], [7, 7, 7, 7, 7, 26]], None, "a_0_0.png: looks like train ids"),
        ([[7, 8, 7, 8, 7, 26]], "train_id", "a_0_0.png: predicted value 26"),
        ([[7, 8, 7, 8, 7, 34]], None, "a_0_0.png: predicted value 34 at 1 pixels; expected 0-33"),
        ([[0, 8, 7, 8, 7, 34]], "train_id", "predicted value 34 at 1 pixels; expected 0-18$"),
        ([[0, 1, 2, 8, 19, 19]], None, "a_0_0.png: predicted value 19 beside train ids"),
        ([[0, 1, 2, 8, 9, 10], [7, 8, 7, 8, 11, 19]], None, "a_0_1.png: predicted value 19 beside"),
    ],
)
def test_values_that_do_not_fit_are_errors(tmp_path, predictions, values, message):
    for number, prediction in enumerate(predictions):
        cityscapes_frame(tmp_path, number, prediction)
    with pytest.raises(ValueError, match=message):
        score_folder(CITYSCAPES, tmp_path / "gt", tmp_path / "out", values=values)


def test_two_predictions_of_one_cityscapes_frame(city):
    """They are refused, even if their file names differ."""
    name = "atown_000000_000000"
    twin = city / "label_id" / "again" / f"{name}_other.png"
    save(twin, np.zeros((40, 70), np.uint8))
    with pytest.raises(ValueError, match=f"{name}_.*is of the same frame"):
        score_folder(CITYSCAPES, city / "gtFine", city / "label_id")
    twin.unlink()
