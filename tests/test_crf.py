"""The CRF against a plain call of pydensecrf and a mean-field step in NumPy; its commands."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydensecrf.densecrf as dcrf
import pytest
from PIL import Image
from pydensecrf.utils import unary_from_softmax

from configs.datasets import load_dataset
from configs.loader import load_config
from configs.schema import Crf
from tools import crf_search
from tools.crf import main as crf_main
from tools.inference import dense_crf
from tools.inference.dense_crf import block_order, refine
from tools.shared.parallel import in_processes
from tools.shared.probabilities import PROBABILITY_SCALE, read_probabilities, write_probabilities
from train.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
HW = (70, 101)


def scene(hw=HW, classes=5, present=3, seed=0):
    """An image of small coloured regions, and noisy probabilities of ``present`` classes."""
    random = np.random.default_rng(seed)
    cells = random.integers(0, present, (hw[0] // 8, hw[1] // 8)).astype(np.uint8)
    regions = cv2.resize(cells, hw[::-1], interpolation=cv2.INTER_NEAREST)
    image = (60 + 25 * regions[..., None] + random.normal(0, 8, (*hw, 3))).clip(0, 255)
    scores = np.full((classes, *hw), -20.0)
    for train_id in range(present):
        noise = cv2.resize(random.normal(0, 2.5, (hw[0] // 2, hw[1] // 2)), hw[::-1])
        scores[train_id] = 2 * (regions == train_id) + noise
    scores = np.exp(scores)
    return image.astype(np.uint8), (scores / scores.sum(0)).astype(np.float32), regions


def plain(image, probabilities, crf):
    height, width = image.shape[:2]
    model = dcrf.DenseCRF2D(width, height, len(probabilities))
    model.setUnaryEnergy(unary_from_softmax(probabilities))
    model.addPairwiseGaussian(sxy=crf.sigma_gamma, compat=crf.w2)
    model.addPairwiseBilateral(sxy=crf.sigma_alpha, srgb=crf.sigma_beta, rgbim=image, compat=crf.w1)
    return np.array(model.inference(crf.iterations)).argmax(0).reshape(height, width)


@pytest.mark.parametrize("crf", [Crf(), Crf(7, 11, 2, 3, 4, 5), Crf(iterations=1)])
def test_labels_are_those_of_a_plain_call(crf):
    image, probabilities, regions = scene()
    labels = refine(image, probabilities, crf)
    expected = plain(image, probabilities, crf)
    assert (labels.dtype, labels.shape) == (np.uint8, HW)
    assert np.mean(labels == expected) >= 0.999
    assert np.mean(expected != probabilities.argmax(0)) > 0.02
    assert np.mean(labels == regions) > np.mean(probabilities.argmax(0) == regions) + 0.01
    for key in ("sigma_alpha", "sigma_beta", "sigma_gamma", "w1", "w2"):  # each one matters
        other = dataclasses.replace(crf, **{key: getattr(crf, key) * 2})
        assert np.mean(plain(image, probabilities, other) == expected) < 0.997, key


def maps(kind, regions, random):
    """Probabilities (5, h, w) of five classes that leave little or much to refine, by ``kind``."""
    wrong = random.random(regions.shape)
    flipped = np.where(wrong < 0.3, random.integers(0, 3, regions.shape), regions)
    hard = np.stack([flipped == train_id for train_id in range(5)]).astype(np.float32)
    if kind == "hard":
        return hard
    if kind == "uniform":
        return np.full_like(hard, 0.2)
    if kind == "graded":  # each class wins somewhere, with smooth transitions
        ramp = np.linspace(0, 2, regions.shape[1])[None]
        scores = np.stack([np.exp(-((ramp - k) ** 2)) + 0 * regions for k in range(3)])
        scores = np.concatenate([scores, np.full((2, *regions.shape), 1e-4)])
        return (scores / scores.sum(0)).astype(np.float32)
    confidence, noise = {"confident": (0.992, 0.005), "noisy": (0.5, 0.3)}[kind]
    flipped = np.where(wrong < noise, random.integers(0, 3, regions.shape), regions)
    shares = [np.where(flipped == k, confidence, (1 - confidence) / 4) for k in range(5)]
    return np.stack(shares).astype(np.float32)


GRID = [
    Crf(sigma_alpha, sigma_beta, 1, w1, w2)
    for sigma_alpha, sigma_beta in ((15, 3), (49, 13))
    for w1, w2 in ((3, 3), (0, 0), (1, 1), (0, 3), (3, 0), (10, 3), (5, 1), (0.1, 0.1), (1, 5))
] + [Crf(iterations=1), Crf(iterations=30)]


@pytest.mark.parametrize("kind", ["confident", "hard", "uniform", "noisy", "graded"])
def test_every_step_is_computed_at_every_point_of_a_grid(kind):
    image, _, regions = scene((47, 61))
    probabilities = maps(kind, regions, np.random.default_rng(5))
    for crf in GRID:
        same = refine(image, probabilities, crf) == plain(image, probabilities, crf)
        assert same.mean() >= 0.9995, crf


def test_a_first_step_that_flips_nothing_is_not_the_last():
    """Two steps change no label, and the next ones correct most of the wrong labels."""
    random = np.random.default_rng(0)
    regions = random.integers(0, 3, (7, 9)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    image = (60 + 50 * regions[..., None] + np.zeros(3)).astype(np.uint8)
    noise = random.integers(0, 3, regions.shape)
    seen = np.where(random.random(regions.shape) < 0.3, noise, regions)
    probabilities = np.stack([np.where(seen == k, 0.5, 0.25) for k in range(3)]).astype(np.float32)
    crf = Crf(w1=1, w2=1)
    first = plain(image, probabilities, dataclasses.replace(crf, iterations=2))
    assert (first == seen).all()
    assert np.mean(seen != regions) > 0.1
    assert np.mean(refine(image, probabilities, crf) != regions) < 0.03


def test_one_step_of_mean_field_written_out():
    """Krähenbühl and Koltun's update with all pairs, and pydensecrf's symmetric normalisation."""
    image, probabilities, _ = scene((13, 17), classes=3)
    crf = Crf(sigma_alpha=6, sigma_beta=25, iterations=1)
    y, x = np.mgrid[:13, :17]
    place = np.stack([x.ravel(), y.ravel()], 1).astype(float)
    colour = image.reshape(-1, 3).astype(float)

    def kernel(*features):
        distance = sum(
            np.sum((f[:, None] - f[None]) ** 2, axis=-1) / (2 * s**2) for f, s in features
        )
        matrix = np.exp(-distance)
        norm = 1 / np.sqrt(matrix.sum(1))
        return norm[:, None] * matrix * norm

    smooth = kernel((place, crf.sigma_gamma))
    bilateral = kernel((place, crf.sigma_alpha), (colour, crf.sigma_beta))
    unary = -np.log(probabilities.reshape(3, -1))
    field = np.exp(-unary)
    field /= field.sum(0)
    energy = unary - crf.w2 * field @ smooth - crf.w1 * field @ bilateral
    # The library's lattice only approximates the kernels.
    assert np.mean(refine(image, probabilities, crf).ravel() == energy.argmin(0)) > 0.97


def test_absent_classes_take_no_part(monkeypatch):
    counts = []
    monkeypatch.setattr(
        dense_crf,
        "DenseCRF",
        lambda n, classes: counts.append(classes) or dcrf.DenseCRF(n, classes),
    )
    image, probabilities, _ = scene(classes=5, present=3)
    few = refine(image, probabilities[:3], Crf())
    np.testing.assert_array_equal(refine(image, probabilities, Crf()), few)
    moved = probabilities[[4, 3, 0, 1, 2]]
    np.testing.assert_array_equal(refine(image, moved, Crf()), few + 2)
    assert counts == [3, 3, 3]
    alone = np.zeros((4, *HW), np.float32)
    alone[2] = 1
    assert (refine(image, alone, Crf()) == 2).all()


def test_many_classes_of_which_none_is_probable():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 31, 3)).astype(np.uint8)
    probabilities = 1 + 0.2 * random.random((25, 20, 31)).astype(np.float32)
    probabilities /= probabilities.sum(0)
    assert probabilities.max() < 0.05
    expected = plain(image, probabilities, Crf())
    assert np.mean(refine(image, probabilities, Crf()) == expected) >= 0.99


def test_stored_maps_give_the_same_labels():
    image, probabilities, _ = scene()
    stored = np.rint(probabilities * PROBABILITY_SCALE).astype(np.uint16)
    same = refine(image, stored, Crf()) == refine(image, probabilities, Crf())
    assert same.mean() >= 0.999


def test_block_order_visits_every_pixel_once():
    order = block_order((65, 130))
    assert sorted(order) == list(range(65 * 130))
    assert order[:2].tolist() == [0, 1] and order[63] == 63 and order[64] == 130


def test_probabilities_are_exact_to_their_bound(tmp_path):
    random = np.random.default_rng(0)
    probabilities = random.random((3, 5, 7)).astype(np.float32)
    probabilities[0, 0, :2] = 0, 1
    write_probabilities(tmp_path / "a.npz", probabilities)
    stored = read_probabilities(tmp_path / "a.npz")
    assert stored.dtype == np.uint16
    assert np.abs(stored / PROBABILITY_SCALE - probabilities).max() <= 1 / 131070 + 1e-7
    assert stored[0, 0, :2].tolist() == [0, 65535]
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    np.savez(tmp_path / "b.npz", x=stored)
    np.savez(tmp_path / "c.npz", probabilities=probabilities)
    (tmp_path / "d.npz").write_bytes(b"")
    for name in "abcd":
        with pytest.raises(ValueError, match=f"{name}.npz: .*probability map"):
            read_probabilities(tmp_path / f"{name}.npz")


@pytest.fixture
def folder(tmp_path):
    """Write two images, probability maps of CamVid's 11 classes, and label files."""
    for number, hw in enumerate((HW, (51, 64))):
        image, probabilities, regions = scene(hw, classes=11, present=3, seed=number)
        name = f"frame{number}"
        for place, array in (("images", image), ("truth", regions)):
            (tmp_path / place).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / place / f"{name}.png")
        (tmp_path / "maps").mkdir(exist_ok=True)
        write_probabilities(tmp_path / "maps" / f"{name}.npz", probabilities)
    return tmp_path


def command(folder, *more):
    places = ("--images", folder / "images", "--probabilities", folder / "maps")
    return [str(part) for part in (*places, "--dataset", "camvid", *more)]


def test_crf_command(folder):
    """The pictures are those of a plain call, and --resume computes only what is missing."""
    config = folder / "my.cfg"
    config.write_text("[crf]\niterations = 3\n")
    run = command(folder, "--out", folder / "out", "--config", config, "--set", "crf.w1=4")
    result = subprocess.run(
        [sys.executable, ROOT / "tools/crf.py", *run, "--jobs", "2"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 refined" in result.stdout
    for number, hw in enumerate((HW, (51, 64))):
        image, probabilities, _ = scene(hw, classes=11, present=3, seed=number)
        written = Image.open(folder / "out" / f"frame{number}.png")
        assert written.mode == "P"
        assert written.getpalette()[:3] == [128, 128, 128]
        expected = plain(image, probabilities, Crf(iterations=3, w1=4))
        assert np.mean(np.array(written) == expected) >= 0.999
    stamp = (folder / "out/frame0.png").stat().st_mtime_ns
    (folder / "out/frame1.png").unlink()
    assert crf_main([*run, "--resume"]) == 0
    assert (folder / "out/frame0.png").stat().st_mtime_ns == stamp
    assert (folder / "out/frame1.png").is_file()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "images/frame0.png").unlink(), "frame0.npz: there is no image frame0.*"),
        (lambda f: [m.unlink() for m in (f / "maps").iterdir()], "no probability maps"),
        (
            lambda f: Image.new("RGB", (9, 8)).save(f / "images/frame1.png"),
            "frame1.npz: the map is 64x51, its image 9x8",
        ),
        (
            lambda f: write_probabilities(f / "maps/frame1.npz", np.zeros((4, 51, 64))),
            "frame1.npz: it has 4 classes, data set camvid 11",
        ),
    ],
)
def test_bad_input_is_named(folder, spoil, message, capsys):
    spoil(folder)
    assert crf_main(command(folder, "--out", folder / "out")) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_no_result_replaces_an_image(folder, capsys, resume):
    before = files_of(folder / "images")
    (folder / "link").symlink_to(folder / "images")
    for out in ("images", "link"):
        assert crf_main(command(folder, "--out", folder / out, *resume)) == 2
        error = capsys.readouterr().err
        assert f"{folder / 'images/frame0.png'}: a result would replace it" in error
        assert error.count("\n") == 1
    assert files_of(folder / "images") == before


def test_results_below_the_images_are_no_images(folder, capsys):
    """Labels beside the maps, and labels of an interrupted call in --out, are left out."""
    (folder / "maps").rename(folder / "images/maps")
    (folder / "images/maps/frame0.png").write_bytes((folder / "truth/frame0.png").read_bytes())
    options = ("--images", "images", "--probabilities", "images/maps", "--out", "images/deep/out")
    run = [str(folder / part) if part[0] != "-" else part for part in options]
    run += ["--dataset", "camvid", "--set", "crf.iterations=1"]
    assert crf_main(run) == 0
    written = files_of(folder / "images/deep/out")
    (folder / "images/deep/out/frame1.png").unlink()
    assert crf_main([*run, "--resume"]) == 0
    assert "1 refined, 1 were there already" in capsys.readouterr().out
    assert files_of(folder / "images/deep/out") == written


@pytest.mark.parametrize("jobs", ["-1", "0"])
def test_a_wrong_number_of_jobs(folder, capsys, jobs):
    assert crf_main(command(folder, "--out", folder / "out", "--jobs", jobs)) == 2
    assert search(folder, "--jobs", jobs) == 2
    assert capsys.readouterr().err == f"error: --jobs {jobs}: expected at least 1\n" * 2
    assert not (folder / "out").exists() and not (folder / "search").exists()


def search(folder, *more):
    grid = ("--grid", "sigma_beta=3,13", "w1=0,3,3.0")
    places = ("--out", folder / "search", "--ground-truth", folder / "truth")
    return crf_search.main(command(folder, *places, *grid, *more))


def test_search_finds_the_best_point_and_resumes(folder, capsys):
    assert search(folder) == 0
    printed = capsys.readouterr().out
    with (folder / "search/points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5  # 2 x 2 points (3 and 3.0 are equal) and the unrefined prediction
    scores = [float(row["mean_iou"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [row["w1"] for row in rows].count("") == 1

    # The best row's score, from the labels that the CRF gives at that point.
    best = load_config(folder / "search/best.cfg").crf
    assert {field: str(value) for field, value in vars(best).items()}.items() <= rows[0].items()
    assert f"sigma_beta = {best.sigma_beta}" in printed
    confusion = np.zeros((3, 3))
    for number, hw in enumerate((HW, (51, 64))):
        image, probabilities, regions = scene(hw, classes=11, present=3, seed=number)
        stored = np.rint(probabilities * PROBABILITY_SCALE).astype(np.uint16)
        np.add.at(confusion, (regions, refine(image, stored, best)), 1)
    hits = np.diag(confusion)
    ious = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    assert scores[0] == pytest.approx(ious.mean())

    # After an interruption, two results and half a line exist; only the others are computed.
    journal = folder / "search/search.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 5
    marked = json.loads(lines[1]) | {"confusion": np.eye(11, dtype=int).tolist()}
    journal.write_text(lines[0] + json.dumps(marked) + "\n" + lines[2] + lines[3][:20])
    first = (folder / "search/points.csv").read_bytes()
    assert search(folder) == 0
    again = journal.read_text().splitlines(keepends=True)
    assert sorted(again[3:]) == sorted(lines[3:])
    assert (folder / "search/points.csv").read_bytes() != first  # the marked result was kept


def test_search_refuses_other_inputs(folder, capsys):
    """Another map, image or label file: the journal's scores are not those of these files."""
    assert search(folder, "--jobs", "1") == 0
    image, probabilities, truth = scene((51, 64), classes=11, present=2, seed=7)
    for name, array in (("images/frame1.png", image), ("truth/frame1.png", truth)):
        before = (folder / name).read_bytes()
        Image.fromarray(array).save(folder / name)
        assert search(folder) == 2
        assert "begun with other inputs" in capsys.readouterr().err
        (folder / name).write_bytes(before)
    assert search(folder) == 0  # the same content, written again
    write_probabilities(folder / "maps/frame1.npz", probabilities)
    assert search(folder) == 2
    assert "begun with other inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n", b"[1]\n", b"\xff\n", b'{"inputs": 1}\n{"task": "x", "confusion": [[1, 2]]}\n'],
)
def test_a_damaged_journal_is_one_sentence(folder, capsys, content):
    (folder / "search").mkdir()
    (folder / "search/search.jsonl").write_bytes(content)
    assert search(folder) == 2
    assert "search.jsonl: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "grid, message",
    [
        ("sigma_beta", "--grid sigma_beta: expected KEY=VALUE,VALUE"),
        ("sigma_bta=3", "unknown key 'sigma_bta'; did you mean 'sigma_beta'"),
        ("sigma_beta=3,x", "sigma_beta = x: expected a number"),
    ],
)
def test_a_wrong_grid(folder, grid, message, capsys):
    places = ("--out", folder / "search", "--ground-truth", folder / "truth")
    assert crf_search.main(command(folder, *places, "--grid", grid)) == 2
    assert message in capsys.readouterr().err


def die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told():
    with pytest.raises(RunError, match="a worker process was killed .out of memory"):
        list(in_processes(die, [1, 2], "refining", 1))


def test_the_paper_values_are_the_defaults():
    crf = load_config(ROOT / "configs/base.cfg").crf
    values = (crf.sigma_alpha, crf.sigma_beta, crf.sigma_gamma, crf.w1, crf.w2)
    assert values == (15, 3, 1, 3, 3)
    assert load_dataset("camvid").num_classes == 11
