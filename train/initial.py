"""The initial parameters of a training: drawn at random, then replaced by those of another run."""

from __future__ import annotations

import logging
from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.loader import differences
from configs.schema import Config

from .errors import RunError
from .machine import PROJECT
from .network import build_symbol, param_shapes
from .params import Params, read_params
from .run_dir import RunDir

log = logging.getLogger("train")

# Keys of [network] that change the function of the same parameters without changing their shapes.
MEANING = ("stride_in", "pool_pad", "bn_eps", "mean_rgb")


def initial_params(config: Config, dataset: DatasetSpec) -> tuple[Params, Params]:
    """Parameters at the start of training, the same for the same seed.

    Convolutions are drawn by Xavier's rule (uniform, fan in; the release): uniformly from -b to b
    with b^2 = ``solver.init_magnitude`` / fan in. Normalisations begin as identity. Parameters of
    ``solver.init_from`` with the same name and shape then replace them. The log lists what was
    loaded and what was not.

    Raises
    ------
    RunError
        ``solver.init_from`` cannot be read, has no fitting parameter, or is an int8 or bf16 folder.
    """
    symbol = build_symbol(config, dataset)
    shapes, attributes = param_shapes(symbol, config.network.downsample), symbol.attr_dict()
    mx.random.seed(config.experiment.seed)
    xavier = mx.init.Xavier("uniform", "in", config.solver.init_magnitude)
    params: tuple[Params, Params] = ({}, {})
    for group, found in zip(params, shapes):
        for name in sorted(found):
            group[name] = mx.nd.zeros(found[name])
            xavier(mx.init.InitDesc(name, attributes.get(name)), group[name])
    if config.solver.source:
        source = Path(config.solver.source)
        if not source.exists() and (PROJECT / source).exists():
            source = PROJECT / source  # own.cfg names models/camvid, from any folder
        if source.is_dir():
            source, found = _newest(RunDir(source), config)
        else:
            found = read_params(source)
        _take_over(params, found, source)
    return params


def _newest(run: RunDir, config: Config) -> tuple[Path, tuple[Params, Params]]:
    """Read a run's newest parameters; warn if they were trained with other options."""
    epoch = run.newest_epoch()
    if run.is_for_inference():
        raise RunError(
            f"{run.path}: int8 and bf16 folders can't be trained; start from the original"
        )
    if run.begun():
        keys = tuple(f"network.{key}:" for key in MEANING)
        changed = differences(run.load()[0], config)
        found = [change for change in changed if change.startswith(keys)]
        if found:
            log.warning(
                "%s was trained with other options, which its parameters need: %s",
                run.path, "; ".join(found),
            )  # fmt: skip
    return run.params_file(epoch), run.load_params(epoch)


def _take_over(params: tuple[Params, Params], source: tuple[Params, Params], file: Path) -> None:
    """Copy what fits from ``source``, which was read from ``file``, to ``params``."""
    loaded, skipped = set(), []
    for group, found in zip(params, source):
        for name, value in found.items():
            if name in group and group[name].shape == value.shape:
                group[name] = value.astype("float32")
                loaded.add(name)
            elif name in group:
                skipped.append(f"{name} is {value.shape} there, {group[name].shape} here")
            else:
                skipped.append(f"{name} is not in this network")
    if not loaded:
        first = f"; first: {skipped[0]}" if skipped else ""
        raise RunError(f"{file}: none of its {len(skipped)} parameters fits this network{first}")
    initialised = [name for group in params for name in group if name not in loaded]
    log.info(
        "%s: %d parameters loaded, %d initialised, %d skipped",
        file, len(loaded), len(initialised), len(skipped),
    )  # fmt: skip
    for name in initialised:
        log.info("  initialised: %s", name)
    for reason in skipped:
        log.info("  skipped: %s", reason)
