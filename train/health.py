"""Conditions that end a training: a loss that is not finite, and too little memory or disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mxnet as mx
import numpy as np

from configs.schema import Config, Solver
from data_iter import DataError

from .command import lacks_memory
from .errors import RunError, reason

# Cross-entropy of a class with probability 2e-9: the network is sure and wrong everywhere.
EXPLODED = 20.0
EXPLODED_FOR = 100  # consecutive iterations; a random network may begin like this
SMALLEST = np.float32(1e-12)  # added to probabilities, so that the logarithm stays finite
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cross_entropy(probabilities: mx.nd.NDArray, label: mx.nd.NDArray, ignore: int) -> float:
    """Mean over the batch's valid cells; 0 without any.

    Parameters
    ----------
    probabilities : NDArray
        (N, L, cells) float32.
    label : NDArray
        (N, cells) train ids as float32.
    ignore : int
        Label of cells that do not count.
    """
    # Only one number per cell leaves the device; ignored cells use the last class.
    chosen = mx.nd.pick(probabilities, label.as_in_context(probabilities.context), axis=1)
    chosen = chosen.asnumpy()[label.asnumpy() != ignore]
    return float(-np.log(chosen + SMALLEST).mean()) if chosen.size else 0.0


def lost(
    solver: Solver, loss: float, iteration: int, lr: float, files: list[str], saved: str | None
) -> RunError:
    """Say where training diverged, and what to do.

    ``files`` are the batch's; ``saved`` names the checkpoint with the parameters of this loss.
    """
    advice = "lower solver.lr"
    if not (solver.source or solver.learn_bn_epochs):
        advice = (
            "random weights need BN statistics: name trained ones in solver.init_from, or set "
            "solver.learn_bn_epochs"
        )
    advice += f", or look at the batch's files: {', '.join(files)}"
    if saved:
        advice += f"; {saved}.params is lost already: remove it to resume from the one before"
    return RunError(
        f"the loss is {loss:g} at iteration {iteration}, learning rate {lr:g}; {advice}"
    )


@contextmanager
def explained(config: Config, run: Path, data_root: Path) -> Iterator[None]:
    """Replace the exceptions of a full disk or memory by a ``RunError`` of one sentence."""
    try:
        yield
    except mx.base.MXNetError as error:
        if not lacks_memory(error):
            raise
        height, width = config.data.crop_hw
        raise RunError(
            f"out of memory ({reason(error)}): lower solver.batch_size "
            f"({config.solver.batch_size}) or data.crop_hw ({height},{width}), or use more devices"
        ) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise RunError(
            f"{error.filename or run}: no room to write it ({error.strerror}); the checkpoints in "
            f"{run} are unharmed: make room, and go on with --resume"
        ) from None
    except DataError as error:
        if data_root.is_dir():
            raise
        raise RunError(
            f"{data_root}: the data folder has vanished ({error}); bring it back, and go on with "
            "--resume"
        ) from None
