"""From toy data to a checked submission and a report, in each of the three official layouts."""

import json
import zipfile

import pytest
from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import args, evaluateImgLists
from training import TINY

from configs.datasets import load_dataset
from tools import crf, evaluate, export_submission, make_toy_data, predict, report
from tools.crf_search import main as crf_search
from train import train_model

pytestmark = pytest.mark.slow


def run(command, *options):
    """Run a command in this process; it must succeed."""
    assert command([str(option) for option in options]) == 0


class Way:
    """The folders and commands that the layouts share."""

    def __init__(self, folder, layout, data):
        self.folder, self.layout, self.data = folder, layout, folder / "toy" / data
        size = ("--size", "64,128", "--frames", "6")
        run(make_toy_data.main, "--out", folder / "toy", "--layout", layout, *size)

    def train(self, **data):
        config = self.folder / "tiny.cfg"
        config.write_text(TINY)
        settings = {"dataset": self.layout, **data}
        sets = [f"--set=data.{key}={value}" for key, value in settings.items()]
        place = ("--config", config, "--data-root", self.data, "--out", self.folder / "run")
        run(train_model.main, *place, *sets)

    def predict(self, images, out, *more):
        self.images = self.data / images
        model = ("--model", self.folder / "run", "--out", self.folder / out)
        run(predict.main, self.images, *model, *more)

    def refine(self):
        maps = ("--images", self.images, "--probabilities", self.folder / "out")
        run(crf.main, *maps, "--dataset", self.layout, "--out", self.folder / "crf")

    def evaluate(self, truth, out="out", *more):
        self.truth = self.data / truth
        places = ("--ground-truth", self.truth, "--predictions", self.folder / out)
        scores = self.folder / f"{out}.json"
        run(evaluate.main, "--dataset", self.layout, *places, "--json", scores, *more)
        return json.loads(scores.read_text())

    def submit(self, archive, *source, split="test"):
        out = self.folder / archive
        place = ("--dataset", self.layout, "--data-root", self.data, "--split", split)
        run(export_submission.main, *place, *source, "--out", out)
        run(export_submission.main, *place, "--check", out)
        return out

    def report(self, *more):
        page = self.folder / "report.html"
        places = ("--images", self.images, "--ground-truth", self.truth)
        rest = ("--predictions", self.folder / "out", "--crf", self.folder / "crf", "--out", page)
        run(report.main, "--dataset", self.layout, *places, *rest, *more)
        return page.read_text()


def test_cityscapes(tmp_path):
    way = Way(tmp_path, "cityscapes", ".")
    way.train()
    way.predict("leftImg8bit/val", "out", "--save-probabilities")
    way.refine()
    scores = way.evaluate("gtFine/val")
    assert scores["images"] == 1 and "mean_iiou" in scores
    refined = way.evaluate("gtFine/val", "crf")
    page = way.report()
    for number in (scores["mean_iou"], refined["mean_iou"]):
        assert f"{100 * number:.2f}" in page
    places = ("--images", way.images, "--probabilities", tmp_path / "out")
    rest = ("--ground-truth", way.truth, "--dataset", "cityscapes", "--out", tmp_path / "search")
    run(crf_search, *places, *rest, "--grid", "w1=3", "iterations=1,10")
    assert f",{refined['mean_iou']}," in (tmp_path / "search/points.csv").read_text()

    way.predict("leftImg8bit/test", "test")
    way.submit("c.zip", "--predictions", tmp_path / "test")
    # The official scorer reads what is exported, here of the frames that have a label file.
    archive = way.submit("val.zip", "--predictions", tmp_path / "out", split="val")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "server")
    args.quiet, args.JSONOutput = True, False
    truths = [str(file) for file in way.truth.rglob("*_labelIds.png")]
    official = evaluateImgLists([str(f) for f in (tmp_path / "server").glob("*")], truths, args)
    assert scores["mean_iou"] == official["averageScoreClasses"]
    assert scores["mean_iiou"] == official["averageScoreInstClasses"]


def test_kitti(tmp_path):
    way = Way(tmp_path, "kitti", "data_road")
    way.train(train_split="trainval", val_split="trainval")
    way.predict("training/image_2", "out", "--save-probabilities")
    way.refine()
    scores = way.evaluate("training")
    assert [row["name"] for row in scores["categories"]] == [
        "um_road",
        "umm_road",
        "uu_road",
        "URBAN",
    ]
    assert f"{100 * scores['categories'][-1]['max_f']:.2f}" in way.report()
    way.predict("testing/image_2", "test", "--save-probabilities")
    from_maps = way.submit("maps.zip", "--predictions", tmp_path / "test")
    from_model = way.submit("model.zip", "--model", tmp_path / "run")
    with zipfile.ZipFile(from_maps) as maps, zipfile.ZipFile(from_model) as model:
        names = ["um_road_000000.png", "umm_road_000000.png", "uu_road_000000.png"]
        assert maps.namelist() == model.namelist() == names


def test_voc(tmp_path):
    way = Way(tmp_path, "voc", "VOCdevkit/VOC2012")
    way.train()
    way.predict("JPEGImages", "out", "--save-probabilities")
    way.refine()
    val = ("--names", way.data / "ImageSets/Segmentation/val.txt")
    scores = way.evaluate("SegmentationClass", "out", *val)
    assert scores["images"] == 1 and len(scores["classes"]) == 21
    assert load_dataset("voc").train_classes[15].name == "person"
    assert f"{100 * scores['mean_iou']:.2f}" in way.report(*val)
    way.submit("results.tar", "--model", tmp_path / "run")
