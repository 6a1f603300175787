"""A tiny data set and a tiny network, and the command that trains them, for the tests of training.

:func:`train` calls the command in this process, because a process of its own takes most of its time
to load MXNet. Tests of signals, limits and killed jobs :func:`start` it as a process.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np

from train import checkpoint, train_model
from train.params import save_arrays

PROJECT = Path(__file__).resolve().parents[1]
TINY = """
[network]
depth = 26
width = 0.05
stem = 3x3
pool_pad = 1
dilation = 1,2; 1,2
aspp = 1,2
cell = 2
bn_eps = 1e-5
bn_momentum = 0.8
[data]
dataset = camvid
patches = image
crop_hw = 32,48
scales = 0.75,1,1.25
threads = 2
[solver]
lr = 0.05
batch_size = 4
epochs = 3
learn_bn_epochs = 2
log_every = 2
keep_checkpoints = 3
"""


def write_frames(root, train=20, val=3, hw=(40, 56)):
    """Write frames of a bright rectangle (class 1), each time elsewhere, on a dark ground (0)."""
    random = np.random.default_rng(1)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            label = np.zeros(hw, np.uint8)
            top, left = random.integers(0, hw[0] - 12), random.integers(0, hw[1] - 20)
            label[top : top + 12, left : left + 20] = 1
            image = random.integers(0, 60, (*hw, 3), np.uint8) + label[:, :, None] * 120
            cv2.imwrite(str(root / f"images/{split}/{number:02}.png"), image)
            cv2.imwrite(str(root / f"labels/{split}/{number:02}.png"), label)
    (root / "tiny.cfg").write_text(TINY)
    return root


def command(root, out, *options):
    return [
        sys.executable, str(PROJECT / "train/train_model.py"), "--config", str(root / "tiny.cfg"),
        "--data-root", str(root), "--out", str(out), *options,
    ]  # fmt: skip


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train(root, out, *options, **settings):
    """Train to the end, in the directory ``root``; return what a process would have returned."""
    options = [*options, *(f"--set={key.replace('__', '.')}={v}" for key, v in settings.items())]
    return call(root, command(root, out, *options)[2:])


def call(folder, arguments):
    """Call the command in this process with ``folder`` as its working directory."""
    stdout, stderr, here = io.StringIO(), io.StringIO(), Path.cwd()
    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level
    log.handlers[:] = []  # without pytest's handlers, as in a process
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = train_model.main(arguments)
    finally:
        os.chdir(here)
        for handler in log.handlers:
            handler.close()
        log.handlers[:] = handlers
        log.setLevel(level)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def start(root, out, *options):
    """Start the command in a process group of its own."""
    return subprocess.Popen(
        command(root, out, *options), cwd=root, env=environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def arrays(out, name):
    return {key: value.asnumpy() for key, value in mx.nd.load(str(out / name)).items()}


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


def forget_momentum(out):
    """Set the momentum of every checkpoint to zero, so that resuming must give other bits."""
    entries = checkpoint.read_manifest(out)
    for entry in entries:
        file = out / f"{entry['name']}.state"
        state = mx.nd.load(str(file))
        zeros = {k: v * 0 if k.startswith("momentum:") else v for k, v in state.items()}
        entry["files"][".state"] = save_arrays(file, zeros)
    checkpoint.write_manifest(out, entries)


def log(out):
    """The records of log.jsonl without what depends on the clock and the machine."""
    lines = (out / "log.jsonl").read_text().splitlines()
    cost = ("samples_per_second", "seconds", "memory_mb")
    return [{k: v for k, v in json.loads(line).items() if k not in cost} for line in lines]
