"""docs/reproduce.md, command by command, on generated data in the official layouts."""

import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.io import savemat
from training import PROJECT

from configs.loader import load_config

pytestmark = pytest.mark.slow
PAGE = (PROJECT / "docs" / "reproduce.md").read_text()
# What a CPU can't do in a test: many GPUs, full width, full crops, many epochs.
SMALL = [
    "--cpus=1", "--set=network.width=0.02", "--set=data.patches=image", "--set=data.crop_hw=64,64",
    "--set=solver.init_from=none", "--set=solver.batch_size=2", "--set=solver.epochs=1",
    "--set=solver.learn_bn_epochs=0",
]  # fmt: skip


def commands():
    """Yield the page's python commands as words, with its shell variables replaced."""
    variables = {}
    for line in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        if assignment := re.fullmatch(r'([A-Z]+)="?([^"]*)"?', line):
            variables[assignment[1]] = assignment[2]
        elif line.startswith("python "):
            yield shlex.split(line)[1:]
        else:
            assert line == "make demo && . .venv/bin/activate"


def resnet(blocks, stem):
    """Names and shapes of a bottleneck ResNet in torchvision (in timm for a stem of three)."""
    names = ("conv1",) if len(stem) == 1 else ("conv1.0", "conv1.3", "conv1.6")
    norms = ("bn1",) if len(stem) == 1 else ("conv1.1", "conv1.4", "bn1")
    layers, wide = [], 3
    for name, norm, channels in zip(names, norms, stem):
        layers.append((name, norm, (channels, wide, *(2 * [7 if len(stem) == 1 else 3]))))
        wide = channels
    for stage, (count, narrow) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            layers += [
                (f"{at}.conv1", f"{at}.bn1", (narrow, wide, 1, 1)),
                (f"{at}.conv2", f"{at}.bn2", (narrow, narrow, 3, 3)),
                (f"{at}.conv3", f"{at}.bn3", (4 * narrow, narrow, 1, 1)),
            ]
            if block == 0:
                layers.append(
                    (f"{at}.downsample.0", f"{at}.downsample.1", (4 * narrow, wide, 1, 1))
                )
            wide = 4 * narrow
    return layers


def save_weights(file, blocks, stem):
    random, arrays = np.random.default_rng(0), {}
    for name, norm, shape in resnet(blocks, stem):
        arrays[f"{name}.weight"] = np.full(shape, 0.01, np.float16)
        for array in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{norm}.{array}"] = random.uniform(0.5, 1.5, shape[0]).astype(np.float16)
    save_file(arrays, str(file))


def save_coco(root):
    """Write one photograph with one person and its annotation, as COCO's archives unpack."""
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    cv2.imwrite(str(root / "train2017/000000000009.jpg"), np.full((60, 80, 3), 90, np.uint8))
    person = {"id": 1, "image_id": 9, "category_id": 1, "iscrowd": 0, "area": 400}
    person |= {"bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
    image = {"id": 9, "file_name": "000000000009.jpg", "height": 60, "width": 80}
    instances = {"images": [image], "annotations": [person]}
    instances["categories"] = [{"id": 1, "name": "person"}]
    (root / "annotations/instances_train2017.json").write_text(json.dumps(instances))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder in which the page's paths lead to the project, small data and weights."""
    root = tmp_path
    monkeypatch.chdir(root)
    for name in ("configs", "tools", "train"):
        (root / name).symlink_to(PROJECT / name)
    (root / "data").mkdir()
    (root / "weights").mkdir()
    for layout, folder in (("cityscapes", "."), ("kitti", "data_road"), ("voc", "VOCdevkit")):
        toy = ["tools/make_toy_data.py", "--out", f"toy/{layout}", "--layout", layout]
        run([*toy, "--frames", "4", "--size", "64,96"])
        shutil.move(root / "toy" / layout / folder, root / "data" / Path(layout, folder).name)
    save_extra(root / "data/cityscapes")
    save_sbd(root / "data/VOCdevkit/VOC2012")
    save_coco(root / "data/coco")
    save_weights(root / "weights/resnet101.safetensors", (3, 4, 23, 3), (64,))
    save_weights(root / "weights/resnet152.safetensors", (3, 8, 36, 3), (64,))
    save_weights(root / "weights/resnet101s.safetensors", (3, 4, 23, 3), (64, 64, 128))
    return root


def save_extra(cityscapes):
    """Give the toy Cityscapes coarse frames: mirrored fine ones under the official names."""
    for image in sorted((cityscapes / "leftImg8bit/train").rglob("*.png"))[:2]:
        stem = image.name.removesuffix("_leftImg8bit.png")
        label = next((cityscapes / "gtFine/train").rglob(f"{stem}_gtFine_labelIds.png"))
        for kind, source, ending in (
            ("leftImg8bit", image, "leftImg8bit"),
            ("gtCoarse", label, "gtCoarse_labelIds"),
        ):
            target = cityscapes / kind / "train_extra" / image.parent.name
            target.mkdir(parents=True, exist_ok=True)
            pixels = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(target / f"{stem}_{ending}.png"), pixels[:, ::-1])


def save_sbd(voc):
    """Give the toy VOC the annotations of SBD, as benchmark.tgz has them."""
    (voc / "SBD/cls").mkdir(parents=True)
    for image in voc.glob("JPEGImages/*.jpg"):
        label = np.zeros(cv2.imread(str(image)).shape[:2], np.uint8)
        savemat(voc / f"SBD/cls/{image.stem}.mat", {"GTcls": {"Segmentation": label}})


def run(words):
    """Run a command in this process; it must succeed."""
    command = import_module(words[0].removesuffix(".py").replace("/", "."))
    # The generated weights were never trained, so this check has to end with 1.
    disagree = words[:2] == ["tools/convert_weights.py", "check"]
    assert command.main(words[1:]) == disagree, shlex.join(words)


def small(words):
    """Return a command of the page as a CPU can run it on generated data."""
    if words[0] == "train/train_model.py":
        at = words.index("--gpus")
        return [*words[:at], *words[at + 2 :], *SMALL]
    if words[1:2] == ["pytorch"]:  # hub:timm/resnet101.gluon_in1k
        name = re.fullmatch(r"hub:timm/(\w+)\.gluon_in1k", words[2])[1]
        return [*words[:2], f"weights/{name}.safetensors", *words[3:]]
    if words[:2] == ["tools/prepare_data.py", "check"]:
        return [*words, "--subset"]
    return words


@pytest.mark.timeout(900)
def test_every_command_of_the_page_in_its_order(machine, capsys):
    lines = list(commands())
    for words in lines:
        run(small(words))
        out = capsys.readouterr().out
        if words[:2] == [
            "tools/convert_weights.py",
            "pytorch",
        ]:  # the page's options are those that fit
            printed = set(re.findall(r"network\.\w+=\S+", out))
            fits = set(re.findall(r"network\.\w+=[^\s\"]+", re.search(r'FITS="(.*)"', PAGE)[1]))
            assert fits == {
                o for o in printed if not o.startswith(("network.depth", "network.stem"))
            }
    assert len(lines) > 20
    for archive in ("cityscapes.zip", "kitti.zip", "results.tar"):
        assert (machine / archive).stat().st_size > 100
    scores = json.loads((machine / "predictions/table2_dilation_bigger.json").read_text())
    assert 0 <= scores["mean_iou"] <= 1


def test_the_trainings_fit_their_weights():
    """Depth and stem of each row are those of the weights that the page gives it."""
    wanted = {"resnet101": (101, "7x7"), "resnet152": (152, "7x7"), "resnet101s": (101, "3x3")}
    found = 0
    for words in commands():
        text = shlex.join(words)
        weights = re.search(r"init_from=weights/(\w+)\.params", text)
        if weights:
            network = load_config(Path(PROJECT, re.search(r"configs/\w+\.cfg", text)[0])).network
            assert (network.depth, network.stem) == wanted[weights[1]], text
            found += 1
    assert found >= 5
