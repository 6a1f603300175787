"""Data parallelism, in this process: any number of devices trains the same network."""

import mxnet as mx
import numpy as np
import pytest
import training

from configs.datasets import load_dataset
from configs.loader import load_config
from train.data import open_batches
from train.distributed.workers import Workers
from train.errors import RunError
from train.module import TrainingModule
from train.network import build_symbol, initial_params
from train.session import train
from train.stop import StopWish

STEPS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training.write_frames(tmp_path_factory.mktemp("frames"))


def trained(root, devices, *settings):
    """Parameters after five steps with frozen BN on the same global batches."""
    overrides = ["solver.learn_bn_epochs=0", "solver.init_magnitude=0.7", *settings]
    config = load_config(root / "tiny.cfg", overrides)
    dataset = load_dataset(config.data.dataset)
    batches = open_batches(config, dataset, root)
    module = TrainingModule(
        build_symbol(config, dataset, weighted=True),
        [mx.cpu(number) for number in range(devices)],
        batches.provide_data,
        batches.provide_label,
        config.solver,
        initial_params(config, dataset),
        {},
        Workers("dist_sync"),
        STEPS,
        0,
    )
    for iteration in range(STEPS):
        module.step(batches.next(), iteration)
    batches.close()
    return {name: value.asnumpy() for name, value in module.params()[0].items()}


def distance(first, second):
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


# Small and padded crops: their numbers of valid pixels differ.
UNEQUAL = "data.scales=0.25,1.25"


def test_one_two_and_four_devices_agree_with_fixed_normalisation(root):
    weights = "solver.class_weights=1,3,1,1,1,1,1,1,1,1,0.5"
    same = ("solver.normalization=fixed", UNEQUAL, weights)
    one, two, four = (trained(root, n, *same) for n in (1, 2, 4))
    assert distance(one, two) < 1e-5
    assert distance(one, four) < 1e-5
    # The controls: a rate 4% higher, and no weights.
    assert distance(one, trained(root, 1, *same, "solver.lr=0.052")) > 1e-4
    assert distance(one, trained(root, 1, *same, "solver.class_weights=")) > 1e-4


def test_they_agree_with_valid_normalisation_where_the_valid_pixels_are_as_many(root):
    one, two, four = (trained(root, n, "data.scales=1") for n in (1, 2, 4))
    assert distance(one, two) < 1e-5
    assert distance(one, four) < 1e-5
    # The control, and a fact worth knowing: each device takes the mean over its own valid pixels.
    assert distance(trained(root, 1, UNEQUAL), trained(root, 2, UNEQUAL)) > 1e-4


def test_a_batch_that_cannot_be_shared_is_refused(root, tmp_path):
    config = load_config(root / "tiny.cfg", ["solver.batch_size=4"])
    dataset = load_dataset(config.data.dataset)
    with pytest.raises(RunError, match=r"batch_size 4 cannot be shared equally by 3 devices"):
        devices = [mx.cpu(n) for n in range(3)]
        train(config, dataset, root, tmp_path / "out", devices, stop=StopWish())
    assert not (tmp_path / "out").exists()


def test_frozen_parameters_stay_and_multipliers_multiply(root):
    start = initial_params(
        load_config(root / "tiny.cfg", ["solver.init_magnitude=0.7"]), load_dataset("camvid")
    )[0]
    start = {name: value.asnumpy() for name, value in start.items()}
    no_decay = ("solver.weight_decay=0", "solver.momentum=0", "solver.power=0")
    frozen = trained(root, 1, "solver.freeze=conv1_*,conv2_*", *no_decay)
    for name, value in frozen.items():
        assert np.array_equal(value, start[name]) == name.startswith(("conv1_", "conv2_")), name
    still = trained(root, 2, "solver.backbone_lr_mult=0", *no_decay)
    for name, value in still.items():
        assert np.array_equal(value, start[name]) == (not name.startswith("fc1_")), name
    # Head alone, twice its rate by either key.
    alone = ("solver.backbone_lr_mult=0", *no_decay)
    double = trained(root, 1, "solver.head_lr_mult=2", *alone)
    assert distance(double, trained(root, 1, "solver.lr=0.1", *alone)) < 1e-6
    assert distance(double, still) > 1e-4
    with pytest.raises(RunError, match=r"no parameter matches 'conv9_\*'"):
        trained(root, 1, "solver.freeze=conv9_*")
