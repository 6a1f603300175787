"""Run folders with random parameters, for tests of what reads them."""

import dataclasses

import mxnet as mx
import numpy as np

from configs.datasets import load_dataset
from configs.schema import Config, Network
from train.network import build_symbol
from train.params import join_params
from train.run_dir import RunDir

TINY = Network(
    depth=26, width=0.0625, stem="3x3", dilation="1,2; 1,2", aspp=(1, 2), cell=2, bn_eps=1e-5
)


def random_params(symbol, seed=0, side=64):
    """Parameters that keep activations near 1, with batch-norm statistics that matter."""
    random = np.random.default_rng(seed)

    def draw(name, shape):
        values = random.standard_normal(shape)
        if name.endswith(("gamma", "var")):
            return 1 + 0.3 * np.abs(values)
        if name.endswith("weight"):
            # Centred pixels reach 100, and the scores shall not saturate the softmax.
            gain = {"conv1": 0.1, "fc1_c": 0.2}.get(name[:5], 1)
            return values * gain * np.sqrt(2 / np.prod(shape[1:]))
        return 0.1 * values

    arg_shapes, _, aux_shapes = symbol.infer_shape(data=(1, 3, side, side))
    args = {
        name: mx.nd.array(draw(name, shape))
        for name, shape in zip(symbol.list_arguments(), arg_shapes)
        if name not in ("data", "seg_loss_label")
    }
    names = symbol.list_auxiliary_states()
    return args, {name: mx.nd.array(draw(name, shape)) for name, shape in zip(names, aux_shapes)}


def make_run(path, dataset="camvid", epoch=3, seed=0, **network):
    """Write a run folder of the tiny network at ``path``."""
    config = dataclasses.replace(Config(), network=dataclasses.replace(TINY, **network))
    run, spec = RunDir(path), load_dataset(dataset)
    run.create(config, spec)
    params = random_params(build_symbol(config, spec), seed)
    mx.nd.save(str(run.params_file(epoch)), join_params(*params))
    return run


def noise(height, width, seed=0):
    """A picture with structure at several scales, (height, width, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200, (-(-height // 16), -(-width // 16), 3))
    fine = random.integers(0, 56, (height, width, 3))
    return (coarse.repeat(16, 0).repeat(16, 1)[:height, :width] + fine).astype(np.uint8)
