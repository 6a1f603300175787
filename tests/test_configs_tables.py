"""Every experiment of the paper: its config, its graph, its parameter count by separate arithmetic.

``ROWS`` is a second transcription of the paper's tables; nothing in it is read from the configs.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest

import symbols
from configs.datasets import load_dataset
from configs.loader import load_config
from data_iter.cells import pack_labels
from data_iter.datasets import find_samples
from train.network import build_symbol, cell_layout

CONFIGS = Path(symbols.__file__).parents[1] / "configs"
BIGGER, RF = [1, 2, 5, 9] * 5 + [1, 2, 5], [1, 2, 3] * 7 + [2, 2]
PLAIN = ([2] * 23, [4] * 3)


@dataclass
class Row:
    """What the paper says of one experiment (Cityscapes, ResNet-101, plain dilation by default)."""

    figure: float
    paths: int = 6
    decoder: str = "duc"
    cell: int = 2
    rates: tuple = PLAIN
    patches: str = "7fold"
    crop: int = 880
    batch: int = 4
    depth: int = 101
    stem: str = "7x7"
    downsample: int = 8
    classes: int = 19
    epochs: tuple = (0, 20)  # those that learn BN statistics, and all
    split: str = "train"


TABLE1 = {"patches": "12fold", "crop": 544, "batch": 12}
DEEP = {"depth": 152, "epochs": (10, 30)}
DEEP_BIGGER = {**DEEP, "rates": ([1, 2, 5, 9] * 9, [5, 9, 17])}
WIDE = {"rates": (BIGGER, [5, 9, 17])}
COARSE = {"split": "train+train_extra"}
VOC = {**DEEP, "classes": 21, "patches": "image", "crop": 512, "batch": 12}

ROWS = {
    "table1_baseline_aspp4_aug": Row(72.3, 4, "bilinear", 8, **TABLE1),
    "table1_baseline_ds4_aspp4_aug": Row(70.9, 4, "bilinear", 4, downsample=4, **TABLE1),
    "table1_duc_noaspp_noaug_cell1": Row(71.9, 1, cell=1, **{**TABLE1, "patches": "image"}),
    "table1_duc_aspp4_noaug_cell1": Row(72.8, 4, cell=1, **{**TABLE1, "patches": "image"}),
    "table1_duc_aspp4_noaug_cell1_equal_updates": Row(
        0, 4, cell=1, **{**TABLE1, "patches": "image", "epochs": (0, 240)}
    ),
    "table1_duc_aspp4_aug_cell1": Row(74.3, 4, cell=1, **TABLE1),
    "table1_duc_ds4_aspp4_aug_cell1": Row(73.7, 4, cell=1, downsample=4, **TABLE1),
    "table1_duc_aspp6_aug_cell1": Row(74.5, 6, cell=1, **TABLE1),
    "table1_duc_aspp6_aug_cell2": Row(74.7, 6, cell=2, **TABLE1),
    "section412_duc_bigger_patch": Row(75.7),
    "section412_deconv2x4": Row(75.0, decoder="deconv2x4", cell=1),
    "table2_no_dilation": Row(72.9, rates=([1] * 23, [1] * 3)),
    "table2_dilation_conv": Row(75.0, rates=([2, 1] * 11 + [2], [2, 1, 2])),
    "table2_dilation_rf": Row(75.4, rates=(RF, [3, 4, 5])),
    "table2_dilation_bigger": Row(76.4, **WIDE),
    "table3_resnet101_deconv": Row(75.1, decoder="deconv", cell=1),
    "table3_resnet101_duc_hdc_fine": Row(76.4, **WIDE),
    "table3_resnet101_duc_hdc_fine_coarse": Row(76.2, **WIDE, **COARSE),
    "table3_resnet152_deconv": Row(
        76.4, decoder="deconv", cell=1, **DEEP, rates=([2] * 36, [4] * 3)
    ),
    "table3_resnet152_duc_hdc_fine": Row(76.7, **DEEP_BIGGER),
    "table3_resnet152_duc_hdc_fine_coarse": Row(77.1, **DEEP_BIGGER, **COARSE),
    "table3_resnet152_coarse_pretrain": Row(0, **DEEP_BIGGER, split="train_extra"),
    "table3_resnet152_coarse_finetune": Row(0, **{**DEEP_BIGGER, "epochs": (0, 20)}),
    "table4_duc_hdc_fine": Row(77.6, **DEEP_BIGGER),
    "table4_duc_hdc_fine_trainval": Row(77.6, **DEEP_BIGGER, split="train+val"),
    "table4_duc_hdc_coarse": Row(78.5, **DEEP_BIGGER, **COARSE),
    "table4_duc_hdc_coarse_better": Row(80.1, stem="3x3", **WIDE, **COARSE),
    "table5_kitti_road": Row(
        96.41, patches="grid", crop=320, batch=12, classes=2, split="trainval"
    ),
    "table6_voc_pretrain": Row(
        0, rates=([2] * 36, [4] * 3), split="train_aug+coco", **VOC
    ),
    "table6_voc_finetune": Row(
        83.1, rates=([2] * 36, [4] * 3), split="trainval_aug", **{**VOC, "epochs": (0, 20)}
    ),
}  # fmt: skip
each_row = pytest.mark.parametrize("name", ROWS)


def load(name, *overrides):
    config = load_config(CONFIGS / f"{name}.cfg", overrides)
    return config, load_dataset(config.data.dataset)


def parameters_by_hand(row):
    """Weights, biases, BN gammas and betas, from Table 1 of He et al. and section 3.1."""
    if row.stem == "7x7":
        total, wide = 7 * 7 * 3 * 64 + 2 * 64, 64
    else:
        total, wide = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128), 128
    blocks = {101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[row.depth]
    for count, narrow in zip(blocks, (64, 128, 256, 512)):
        total += wide * 4 * narrow + 2 * 4 * narrow  # the projection of the first block
        for _ in range(count):
            total += wide * narrow + 9 * narrow * narrow + narrow * 4 * narrow
            total += 2 * (narrow + narrow + 4 * narrow)
            wide = 4 * narrow
    block = row.downsample // row.cell
    outputs = {"deconv": 291, "deconv2x4": 289}.get(row.decoder, row.classes * block * block)
    total += row.paths * (9 * 2048 * outputs + outputs)
    if row.decoder == "deconv":
        total += 16 * 16 * 291 * row.classes + row.classes
    if row.decoder == "deconv2x4":
        total += 4 * 4 * 289 * 289 + 289 + 8 * 8 * 289 * row.classes + row.classes
    return total


def launch_command(name):
    """Start from weights: random ones with fixed BN statistics overflow in 101 layers (README)."""
    command = f"# python train/train_model.py --config configs/{name}.cfg --data-root DIR"
    return f"{command} --set solver.init_from=WEIGHTS"


def test_release_and_its_training_are_two_configs():
    """They have the values of the release's network and of its train_cityscapes.cfg."""
    network, training = (
        load_config(CONFIGS / f"{name}.cfg") for name in ("release", "release_training")
    )
    assert network.network == training.network
    assert (network.network.dilation, network.network.stem) == ("release", "3x3")
    data, solver = training.data, training.solver
    assert (data.patches, data.crop_hw, data.patch_jitter) == ("7fold", (800, 800), 120)
    assert data.scales == (0.5, 0.75, 1, 1.25, 1.5) and data.mirror
    rule = (solver.lr, solver.schedule, solver.step_epochs, solver.step_factor)
    assert rule == (1e-4, "step", 5, 0.5)
    assert (solver.weight_decay, solver.momentum, solver.clip_gradient) == (5e-5, 0.9, 5)
    assert (solver.batch_size, solver.normalization, solver.epochs) == (1, "release", 50 - 20)


def nodes_without_widths(symbol):
    """Operators, names, connections and attributes of a graph, but for channel counts."""
    nodes = json.loads(symbol.tojson())["nodes"]
    for node in nodes:
        node.get("attrs", {}).pop("num_filter", None)
    return nodes


def test_every_row_of_the_paper_has_its_config():
    files = {path.stem for path in CONFIGS.glob("*.cfg")}
    assert {name for name in files if name.startswith(("table", "section"))} == set(ROWS)


@each_row
def test_config_says_what_the_paper_says(name):
    row = ROWS[name]
    text = (CONFIGS / f"{name}.cfg").read_text()
    lines = text.splitlines()
    assert len(lines) < 15
    assert lines[0] == launch_command(name)
    table = f"Table {name[5]}, " if name.startswith("table") else "Section 4.1.2, "
    assert lines[1].startswith(f"# {table}")
    assert f" {row.figure} " in lines[1].replace(",", " ") or not row.figure
    config, dataset = load(name)
    network, data, solver = config.network, config.data, config.solver
    assert dataset.num_classes == row.classes
    assert network.aspp == {1: (12,), 4: (6, 12, 18, 24), 6: (6, 12, 18, 24, 30, 36)}[row.paths]
    assert (data.patches, data.crop_hw, data.train_split) == (
        row.patches, (row.crop, row.crop), row.split
    )  # fmt: skip
    assert (solver.batch_size, (solver.learn_bn_epochs, solver.epochs)) == (row.batch, row.epochs)
    assert solver.fixed_bn == ("all" if row.depth == 152 else "statistics")
    assert (solver.schedule, data.patch_jitter) == ("poly", 80)
    assert (solver.lr, solver.power, solver.momentum, solver.weight_decay) == (
        2.5e-4, 0.9, 0.9, 5e-4
    )  # fmt: skip
    if data.patches == "grid":
        assert (data.patch_hw, data.patch_stride) == ((320, 320), 100)


@each_row
def test_full_graph_at_its_own_patch_size(name):
    row = ROWS[name]
    config, dataset = load(name)
    symbol = build_symbol(config, dataset)
    crop = config.data.crop_hw[0]
    arguments, outputs, _ = symbol.infer_shape(data=(2, 3, crop, crop))
    shapes = dict(zip(symbol.list_arguments(), arguments))
    cells = (row.crop // row.cell) ** 2
    assert outputs == [(2, row.classes, cells)]
    assert shapes.pop("seg_loss_label") == (2, cells)
    packed = pack_labels(np.zeros((2, crop, crop), np.uint8), *cell_layout(config.network))
    assert packed.shape == (2, cells)
    del shapes["data"]
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters_by_hand(row)
    attributes = symbol.attr_dict()
    finer = 8 // row.downsample
    early = {101: ([1] * 3, [1] * 4), 152: ([1] * 3, [1] * 8)}[row.depth]
    for stage, rates in zip((2, 3, 4, 5), (*early, *row.rates)):
        found = [attributes[f"conv{stage}_{u}_3x3"]["dilate"] for u in range(1, len(rates) + 1)]
        times = finer if stage > 2 else 1  # at DS 4 res3 has no stride: higher rates from there on
        assert found == [f"({r * times}, {r * times})" for r in rates]
        assert f"conv{stage}_{len(rates) + 1}_3x3" not in attributes


@each_row
def test_head_of_each_row(name):
    row = ROWS[name]
    config, dataset = load(name)
    symbol = build_symbol(config, dataset)
    attributes = symbol.attr_dict()
    head = f"fc1_{dataset.name}" + ("_deconv" if "deconv" in row.decoder else "")
    rates = [12] if row.paths == 1 else [6, 12, 18, 24, 30, 36][: row.paths]
    found = [attributes[f"{head}_c{path}"]["dilate"] for path in range(row.paths)]
    assert found == [f"({rate}, {rate})" for rate in rates]
    factors = {"deconv": [8], "deconv2x4": [2, 4]}.get(row.decoder, [])
    layers = range(1, len(factors) + 1)
    strides = [attributes[f"{head}_up{layer}"]["stride"] for layer in layers]
    assert strides == [f"({factor}, {factor})" for factor in factors]
    activations = [n for n in symbol.get_internals().list_outputs() if f"{head}_relu" in n]
    assert activations == [f"{head}_relu{layer}_output" for layer in layers]


@each_row
def test_narrow_version_is_the_same_graph_and_learns(name):
    """The gradients are finite; those of the head and of most other arrays are not zero."""
    row = ROWS[name]
    config, dataset = load(name, "network.width=0.02")
    narrow = build_symbol(config, dataset, learn_bn=True)
    full = build_symbol(load(name)[0], dataset, learn_bn=True)
    assert nodes_without_widths(narrow) == nodes_without_widths(full)
    hw = (24, 40)
    executor = narrow.simple_bind(mx.cpu(), data=(2, 3, *hw))
    mx.random.seed(0)
    initialise = mx.init.Xavier("gaussian", "in", 2)
    for key, array in executor.arg_dict.items():
        if key not in ("data", "seg_loss_label"):
            initialise(mx.init.InitDesc(key), array)
    random = np.random.default_rng(0)
    executor.arg_dict["data"][:] = random.normal(0, 50, (2, 3, *hw))
    labels = random.integers(0, row.classes, (2, *hw)).astype(np.uint8)
    labels[:, :8, :8] = 255
    executor.arg_dict["seg_loss_label"][:] = pack_labels(labels, *cell_layout(config.network))
    probabilities = executor.forward(is_train=True)[0].asnumpy()
    assert probabilities.shape == (2, row.classes, (hw[0] // row.cell) * (hw[1] // row.cell))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
    executor.backward()
    trained = {k: v for k, v in executor.grad_dict.items() if k not in ("data", "seg_loss_label")}
    gradients = {key: gradient.asnumpy() for key, gradient in trained.items()}
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert all(gradients[key].any() for key in gradients if key.startswith("fc1"))
    assert np.mean([gradient.any() for gradient in gradients.values()]) > 0.9


@pytest.fixture(scope="module")
def data_roots(tmp_path_factory):
    """Write the smallest tree of each data set that has every split of the configs."""
    root = tmp_path_factory.mktemp("data")
    files = ["kitti/training/image_2/um_000000.png", "kitti/training/gt_image_2/um_road_000000.png"]
    for split, kind in (("train", "gtFine"), ("val", "gtFine"), ("train_extra", "gtCoarse")):
        name = f"{split}/city/city_000000_000019"
        files += [
            f"cityscapes/leftImg8bit/{name}_leftImg8bit.png",
            f"cityscapes/{kind}/{name}_{kind}_labelIds.png",
        ]
    for name in ("2007_000001", "2007_000002", "2008_000003"):
        files += [f"voc/JPEGImages/{name}.jpg", f"voc/SegmentationClassAug/{name}.png"]
        files += [f"voc/SegmentationClass/{name}.png"] * name.startswith("2007")
    files += ["voc/coco/images/train2017/000000000009.jpg"]
    files += ["voc/coco/labels/train2017/000000000009.png"]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / file), np.zeros((4, 6), np.uint8))
    lists = root / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    return root


@each_row
def test_its_splits_are_found_in_the_official_layout(name, data_roots):
    config, dataset = load(name)
    found = {
        split: [
            sample.name for sample in find_samples(dataset.layout, data_roots / dataset.name, split)
        ]
        for split in (config.data.train_split, config.data.val_split)
        if split
    }
    frame = "city_000000_000019"
    assert (
        found[config.data.train_split]
        == {
            "train": [frame],
            "train+train_extra": [frame, frame],
            "train_extra": [frame],
            "train+val": [frame, frame],
            "trainval": ["um_000000"],
            "train_aug+coco": ["000000000009", "2007_000001", "2008_000003"],
            "trainval_aug": ["2007_000001", "2007_000002", "2008_000003"],
        }[ROWS[name].split]
    )


def test_the_control_without_augmentation_has_as_many_updates():
    updates = {}
    for name, visits in (("aug_cell1", 12), ("noaug_cell1", 1), ("noaug_cell1_equal_updates", 1)):
        solver = load(f"table1_duc_aspp4_{name}")[0].solver
        updates[name] = solver.epochs * math.ceil(2975 * visits / solver.batch_size)
    assert updates["aug_cell1"] == 59_500 and updates["noaug_cell1"] == 4_960
    assert updates["noaug_cell1_equal_updates"] == 59_520


def test_deconvolution_heads_are_as_large_as_duc():
    duc = parameters_by_hand(ROWS["section412_duc_bigger_patch"])
    backbone = parameters_by_hand(Row(0, paths=0))
    for name in ("table3_resnet101_deconv", "section412_deconv2x4"):
        deconvolution = parameters_by_hand(ROWS[name])
        assert abs(deconvolution / duc - 1) < 0.001
        assert abs((deconvolution - backbone) / (duc - backbone) - 1) < 0.02


def test_arithmetic_by_hand_agrees_with_the_published_resnets():
    # Parameters of ResNet-101 and -152 in every model zoo, less their 1000-class layer.
    last = 2048 * 1000 + 1000
    assert parameters_by_hand(Row(0, paths=0)) == 44_549_160 - last
    assert parameters_by_hand(Row(0, paths=0, depth=152)) == 60_192_808 - last


def test_the_two_beside_the_tables_begin_from_weights_too():
    for name in ("duc_hdc", "release"):
        assert (CONFIGS / f"{name}.cfg").read_text().splitlines()[0] == launch_command(name)


def test_rows_that_are_one_experiment_agree():
    same = (
        ("duc_hdc", "table2_dilation_bigger", "table3_resnet101_duc_hdc_fine"),
        ("table3_resnet152_duc_hdc_fine", "table4_duc_hdc_fine"),
        ("table3_resnet152_duc_hdc_fine_coarse", "table4_duc_hdc_coarse"),
    )
    for first, *others in same:
        assert all(load(other)[0] == load(first)[0] for other in others)
