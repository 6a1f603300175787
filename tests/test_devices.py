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
from train.initial import initial_params
from train.module import TrainingModule
from train.network import build_symbol
from train.schedule import Length
from train.stop import StopWish
from train.trainer import train

STEPS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training.write_frames(tmp_path_factory.mktemp("frames"))


def trained(root, devices, *settings, state=None, steps=STEPS):
    """Train some steps with fixed BN on the same global batches; return the parameters."""
    overrides = ["solver.learn_bn_epochs=0", "solver.init_magnitude=0.7", *settings]
    config = load_config(root / "tiny.cfg", overrides)
    dataset = load_dataset(config.data.dataset)
    batches = open_batches(config, dataset, root)
    module = TrainingModule(
        build_symbol(config, dataset, training=True),
        [mx.cpu(number) for number in range(devices)],
        batches.provide_data,
        batches.provide_label,
        config.solver,
        initial_params(config, dataset),
        state or {},
        Workers("dist_sync"),
        Length(STEPS, 1),
        0,
        learns_bn=False,
    )
    for iteration in range(steps):
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


@pytest.mark.parametrize("loss", ["focal", "ohem"])
def test_other_losses_agree_over_devices_and_parts(root, loss):
    """No cell is easy for an untrained network, so OHEM chooses all of them on every device."""
    same = ("solver.normalization=fixed", UNEQUAL, "solver.class_weights=1,3,1,1,1,1,1,1,1,1,0.5")
    one = trained(root, 1, *same, f"solver.loss={loss}")
    assert distance(one, trained(root, 2, *same, f"solver.loss={loss}")) < 1e-5
    parts = trained(root, 1, *same, f"solver.loss={loss}", "solver.accumulate=2")
    assert distance(one, parts) < 1e-5
    plain = trained(root, 1, *same)
    assert distance(one, plain) < 1e-5 if loss == "ohem" else distance(one, plain) > 1e-4


def test_they_agree_with_valid_normalisation_where_the_valid_pixels_are_as_many(root):
    one, two, four = (trained(root, n, "data.scales=1") for n in (1, 2, 4))
    assert distance(one, two) < 1e-5
    assert distance(one, four) < 1e-5
    # The control: otherwise they differ, as each device averages over its own valid pixels.
    assert distance(trained(root, 1, UNEQUAL), trained(root, 2, UNEQUAL)) > 1e-4


def slice_gradient(config, dataset, params, batch, part):
    """Gradient of the mean loss over the valid pixels of the crops ``part`` of a batch."""
    executor = build_symbol(config, dataset).bind(
        mx.cpu(),
        {
            "data": batch.data[0][part],
            "seg_loss_label": batch.label[0][part],
            **{name: value.copy() for name, value in params[0].items()},
        },
        args_grad={name: mx.nd.zeros_like(value) for name, value in params[0].items()},
        aux_states={name: value.copy() for name, value in params[1].items()},
    )
    executor.forward(is_train=True)
    executor.backward()
    return {name: executor.grad_dict[name].asnumpy() for name in params[0]}


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("normalization", ["release", "valid"])
def test_a_step_is_the_formula_of_its_normalisation(root, devices, normalization):
    """valid: lr times the mean of the devices' means; release: lr times their sum / crops."""
    settings = ("solver.weight_decay=0", "solver.clip_gradient=0", "solver.lr=0.5", UNEQUAL)
    overrides = ["solver.init_magnitude=0.7", f"solver.normalization={normalization}", *settings]
    config = load_config(root / "tiny.cfg", overrides)
    dataset = load_dataset(config.data.dataset)
    params = initial_params(config, dataset)
    batches = open_batches(config, dataset, root)
    batch = batches.next()
    batches.close()
    share = config.solver.batch_size // devices
    parts = [slice(n * share, (n + 1) * share) for n in range(devices)]
    gradients = [slice_gradient(config, dataset, params, batch, part) for part in parts]
    divisor = {"valid": devices, "release": 4}[normalization]
    trained_params = trained(root, devices, *overrides, steps=1)
    for name, start in params[0].items():
        expected = start.asnumpy() - 0.5 / divisor * sum(g[name] for g in gradients)
        np.testing.assert_allclose(trained_params[name], expected, atol=2e-6, err_msg=name)


def test_momentum_of_fixed_gammas_and_betas_moves_nothing(root):
    config = load_config(root / "tiny.cfg", ["solver.init_magnitude=0.7"])
    start = initial_params(config, load_dataset(config.data.dataset))[0]
    state = {f"momentum:{name}": mx.nd.ones_like(value) for name, value in start.items()}
    found = trained(root, 2, "solver.fixed_bn=all", state=state, steps=1)
    for name, value in start.items():
        fixed = name.endswith(("/bn_gamma", "/bn_beta"))
        assert np.array_equal(found[name], value.asnumpy()) == fixed, name


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
    # The head alone is trained, at twice the rate, by either key.
    alone = ("solver.backbone_lr_mult=0", *no_decay)
    double = trained(root, 1, "solver.head_lr_mult=2", *alone)
    assert distance(double, trained(root, 1, "solver.lr=0.1", *alone)) < 1e-6
    assert distance(double, still) > 1e-4
    with pytest.raises(RunError, match=r"no parameter matches 'conv9_\*'"):
        trained(root, 1, "solver.freeze=conv9_*")


def relative(first, second):
    """Largest difference of an array's values over the largest of them."""
    return max(
        float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max())
        for name in first
        if np.abs(first[name]).max() > 0
    )


def test_a_batch_in_parts_is_the_whole_batch(tmp_path):
    frames = training.write_frames(tmp_path, train=60, val=1)  # five batches
    twelve = ("solver.batch_size=12", "solver.normalization=fixed", UNEQUAL)
    whole = trained(frames, 1, *twelve)
    for devices, parts in ((1, 2), (1, 12), (2, 3)):
        found = trained(frames, devices, *twelve, f"solver.accumulate={parts}")
        assert relative(whole, found) < 1e-6, (devices, parts)
    assert relative(whole, trained(frames, 1, *twelve, "solver.lr=0.0501")) > 1e-5  # the control


@pytest.mark.parametrize("normalization", ["valid", "release"])
def test_parts_of_a_batch_count_like_devices(root, normalization):
    """Each part takes the mean over its own valid pixels, as a device does."""
    same = (UNEQUAL, f"solver.normalization={normalization}")
    four = trained(root, 4, *same)
    for devices, parts in ((1, 4), (2, 2)):
        assert relative(four, trained(root, devices, *same, f"solver.accumulate={parts}")) < 1e-6
    if normalization == "valid":
        assert relative(four, trained(root, 1, *same)) > 1e-4


def test_probabilities_of_parts_are_in_the_order_of_the_batch(root):
    found = {}
    for parts in (1, 4):
        config = load_config(root / "tiny.cfg", [f"solver.accumulate={parts}"])
        dataset = load_dataset(config.data.dataset)
        batches = open_batches(config, dataset, root)
        module = TrainingModule(
            build_symbol(config, dataset), [mx.cpu()], batches.provide_data, batches.provide_label,
            config.solver, initial_params(config, dataset), {}, Workers("dist_sync"),
            Length(1, 1), 0, learns_bn=False,
        )  # fmt: skip
        found[parts] = module.step(batches.next(), 0).asnumpy()
        batches.close()
    assert found[4].shape == (4, 11, 16 * 24)
    np.testing.assert_allclose(found[4], found[1], atol=1e-6)


def test_a_batch_that_cannot_be_cut_is_refused(root, tmp_path):
    config = load_config(root / "tiny.cfg", ["solver.accumulate=3"])
    dataset = load_dataset(config.data.dataset)
    with pytest.raises(RunError, match=r"batch_size 4 .* by 1 devices in 3 parts"):
        train(config, dataset, root, tmp_path / "out", [mx.cpu()], stop=StopWish())
