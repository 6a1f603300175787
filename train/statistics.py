"""Check whether stored batch-norm statistics match the images as they are read.

Weights do not show the channel order, the scale and the mean of their training images. Batch norms
do: each stores mean and variance of its input. Only the layers before the dilated stages are
compared; they are the same in every network of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import mxnet as mx
import numpy as np

from configs.datasets import DatasetSpec
from configs.schema import Config, Network

from .network import build_symbol
from .params import Params

Statistics = dict[str, tuple[np.ndarray, np.ndarray]]  # convolution: mean and variance of outputs
MEAN, VARIANCE = "/bn_moving_mean", "/bn_moving_var"  # end the names of the stored ones
UNDILATED = ("conv1", "conv2", "conv3")  # begin the names of what is compared
OTHER_MEAN = 5  # of 0..255: closer channel means can't be distinguished
APART = 0.5  # Hellinger distance above which statistics come from other images
CLEARLY = 0.9  # another reading is right if its distance is below this share
Reading = Callable[[np.ndarray], np.ndarray]  # turns images as they are read into others
BGR = "with channels in the order BGR"
STD = 58.0  # roughly that of ImageNet's pixels: the most common mistake in scale


def stored(aux_params: Params) -> Statistics:
    """Return the statistics in auxiliary states."""
    return {
        name[: -len(MEAN)]: (mean.asnumpy(), aux_params[name[: -len(MEAN)] + VARIANCE].asnumpy())
        for name, mean in aux_params.items()
        if name.endswith(MEAN)
    }


def are_folded(statistics: Statistics) -> bool:
    """Whether every mean is 0 and every variance 1: folded into gamma and beta, or untrained."""
    return all(
        (mean == 0).all() and (variance == 1).all() for mean, variance in statistics.values()
    )


def measure(
    symbol: mx.sym.Symbol,
    params: tuple[Params, Params],
    convolutions: Iterable[str],
    batches: Iterable[np.ndarray],
    context: mx.Context,
) -> Statistics:
    """Measure mean and variance of convolutions' outputs, under the batch norms as they are stored.

    Parameters
    ----------
    symbol : Symbol
        A graph that fixes its statistics.
    params : tuple of two dicts
        Arguments and auxiliary states; additional ones are ignored.
    batches : iterable of ndarray
        (N, 3, H, W) float32, all of one H and W; batches may differ in N.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Each (C,) float64, over all positions of all images.
    """
    names = list(convolutions)
    internals = symbol.get_internals()
    outputs: list[mx.sym.Symbol] = []
    for name in names:
        outputs += list(mx.sym.moments(internals[f"{name}_output"], axes=(0, 2, 3)))
    graph = mx.sym.Group(outputs)
    used = {*graph.list_arguments(), *graph.list_auxiliary_states()}
    args, auxs = (
        {name: value.as_in_context(context) for name, value in group.items() if name in used}
        for group in params
    )
    total = np.zeros(())
    sums: list[np.ndarray] = [np.zeros(())] * len(outputs)
    for batch in batches:
        data = {"data": mx.nd.array(batch, context)}
        executor = graph.bind(context, {**args, **data}, grad_req="null", aux_states=auxs)
        moments = [o.asnumpy().astype(np.float64) for o in executor.forward(is_train=False)]
        total = total + len(batch)
        for place in range(0, len(outputs), 2):
            mean, variance = moments[place : place + 2]
            sums[place] = sums[place] + len(batch) * mean
            sums[place + 1] = sums[place + 1] + len(batch) * (variance + mean**2)
    found = {}
    for place, name in enumerate(names):
        mean, square = sums[2 * place] / total, sums[2 * place + 1] / total
        found[name] = mean, np.maximum(square - mean**2, 0)
    return found


def distance(one: Statistics, other: Statistics, eps: float) -> float:
    """Mean Hellinger distance, 0 (equal) to 1 (nothing in common), over channels, then layers.

    Channels count as normally distributed with the two means and variances, to which ``eps`` adds.
    """
    distances = []
    for name, (mean, variance) in one.items():
        mean2, variance2 = other[name]
        first, second = variance + np.float64(eps), variance2 + np.float64(eps)
        overlap = np.sqrt(2 * np.sqrt(first * second) / (first + second))
        overlap *= np.exp(-((mean - mean2) ** 2) / (4 * (first + second)))
        distances.append(np.sqrt(np.clip(1 - overlap, 0, 1)).mean())
    return float(np.mean(distances))


class Verdict(NamedTuple):
    """Whether weights and images certainly disagree, and one line for the user."""

    disagree: bool
    text: str


def _readings(network: Network) -> dict[str, Reading]:
    """Name the ways to read images that are compared: what turns ``data`` into such data."""
    mean = np.array(network.mean_rgb, np.float32)[:, None, None]
    readings: dict[str, Reading] = {
        "as they are read": lambda data: data,
        BGR: lambda data: (data + mean)[:, ::-1] - mean,
        "without network.mean_rgb subtracted": lambda data: data + mean,
        f"multiplied by {STD:g}": lambda data: data * STD,
        f"divided by {STD:g}": lambda data: data / STD,
    }
    usual = np.array(Network().mean_rgb, np.float32)[:, None, None]
    if np.abs(mean - usual).max() > OTHER_MEAN:
        name = ",".join(map(str, Network().mean_rgb))
        readings[f"with network.mean_rgb {name}"] = lambda data: data + mean - usual
    return readings


def verdict(
    config: Config,
    dataset: DatasetSpec,
    params: tuple[Params, Params],
    batches: list[np.ndarray],
    context: mx.Context,
) -> Verdict:
    """Judge whether parameters belong to images as ``config`` reads them.

    ``batches`` are (N, 3, H, W) float32, RGB minus ``network.mean_rgb``, all of one H and W.
    """
    kept = {n: v for n, v in stored(params[1]).items() if n.startswith(UNDILATED)}
    if are_folded(kept):
        return Verdict(
            False,
            "the batch-norm statistics are folded (0 and 1), so whether the weights belong to this "
            "preprocessing can't be told",
        )
    symbol = build_symbol(config, dataset)
    found = {
        reading: distance(
            kept,
            measure(symbol, params, kept, map(change, batches), context),
            config.network.bn_eps,
        )
        for reading, change in _readings(config.network).items()
    }
    best = min(found, key=lambda reading: found[reading])
    here = found["as they are read"]
    figures = f"distance {here:.2f}, 0 to 1"
    if found[best] < CLEARLY * here:
        return Verdict(
            True,
            f"the batch-norm statistics do NOT agree with the images ({figures}); they would "
            f"{best} ({found[best]:.2f}): the weights belong to another preprocessing",
        )
    if here > APART:
        return Verdict(
            True,
            f"the batch-norm statistics do NOT agree with the images ({figures}): another "
            "preprocessing or another network.stride_in, pool_pad or bn_eps",
        )
    order = "" if here < CLEARLY * found[BGR] else "; RGB or BGR can't be told from such grey ones"
    return Verdict(False, f"the batch-norm statistics agree with the images ({figures}){order}")
