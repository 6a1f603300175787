"""A network's graph and its parameters: how they begin, are read, and are held together."""

from __future__ import annotations

import logging
from pathlib import Path

import mxnet as mx

from configs.datasets import DatasetSpec
from configs.loader import differences, load_config
from configs.schema import Config
from symbols import get_symbol

from .errors import RunError

log = logging.getLogger("train")
Params = dict[str, mx.nd.NDArray]
HEAD = "fc1_"  # begins the names of the head's and the decoder's parameters, and no others
INPUTS = ("data", "seg_loss_label")
INFERENCE_SYMBOL = "inference-symbol.json"  # in run folders of tools/quantize.py
# Keys of [network] under which the same parameters are another function; their shapes don't tell.
MEANING = ("stride_in", "pool_pad", "bn_eps", "mean_rgb")


def build_symbol(
    config: Config, dataset: DatasetSpec, *, learn_bn: bool = False, weighted: bool = False
) -> mx.sym.Symbol:
    """Build the graph of ``config`` for the classes of ``dataset``.

    The options are for training: learning the BN statistics, and ``solver.class_weights``.
    """
    return get_symbol(
        classes=dataset.num_classes,
        head=dataset.name,
        learn_bn=learn_bn,
        # The release's graph is that of valid; its scale is the optimiser's (train/module.py).
        normalization="fixed" if config.solver.normalization == "fixed" else "valid",
        ignore_label=dataset.ignore_id,
        class_weights=config.solver.class_weights if weighted else (),
        **config.network.graph_options,
    )


def read_params(path: Path) -> tuple[Params, Params]:
    """Read an MXNet ``.params`` file as (arguments, auxiliary states)."""
    if not path.is_file():
        raise RunError(f"{path}: no such parameter file")
    try:
        named = mx.nd.load(str(path))
    except mx.base.MXNetError as error:
        raise RunError(f"{path}: not a whole MXNet parameter file ({reason(error)})") from None
    if not isinstance(named, dict):
        raise RunError(f"{path}: its arrays have no names")
    for key in named:
        if not key.startswith(("arg:", "aux:")):
            raise RunError(f"{path}: found '{key}', expected names that begin with arg: or aux:")
    return split_params(named)


def join_params(arg_params: Params, aux_params: Params) -> Params:
    """Put arguments and auxiliary states under the names that MXNet's files have."""
    named = {f"arg:{name}": value for name, value in arg_params.items()}
    return named | {f"aux:{name}": value for name, value in aux_params.items()}


def split_params(named: Params) -> tuple[Params, Params]:
    """Undo :func:`join_params`."""
    groups: dict[str, Params] = {"arg": {}, "aux": {}}
    for key, value in named.items():
        group, _, name = key.partition(":")
        groups[group][name] = value
    return groups["arg"], groups["aux"]


def reason(error: Exception) -> str:
    """Return the line of MXNet's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error:" in line), lines[0] if lines else "no reason")


def check_params(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, source: Path, side: int
) -> None:
    """Hold parameters against the graph; ``RunError`` names the first that does not fit.

    ``side`` is any input size that the graph accepts, in pixels.
    """
    arguments, states = param_shapes(symbol, side)
    expected, found = arguments | states, arg_params | aux_params
    for name, shape in expected.items():
        if name not in found:
            raise RunError(f"{source}: parameter {name} {shape} is missing")
        if found[name].shape != shape:
            raise RunError(f"{source}: {name} is {found[name].shape}, the network has {shape}")
    extra = sorted(found.keys() - expected.keys())
    if extra:
        raise RunError(
            f"{source}: parameter {extra[0]} {found[extra[0]].shape} is not in the network"
        )


def initial_params(config: Config, dataset: DatasetSpec) -> tuple[Params, Params]:
    """Parameters at the start of training, the same for the same seed.

    Convolutions are drawn by Xavier's rule (uniform, fan in; the release): evenly from -b to b with
    b^2 = ``solver.init_magnitude`` / fan in. Normalisations begin as identity. Then every parameter
    that ``solver.init_from`` has under the same name and shape takes its place. What was loaded and
    what was not is logged.

    Raises
    ------
    RunError
        ``solver.init_from`` cannot be read, has nothing that fits, or is an int8 or bf16 folder.
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
    if config.solver.init_from:
        source = Path(config.solver.init_from)
        _take_over(params, _newest(source, config) if source.is_dir() else source)
    return params


def _newest(run: Path, config: Config) -> Path:
    """Name the newest parameters of a run; warn of options that they were trained with."""
    files = sorted(run.glob("model-*.params"))
    if not files:
        raise RunError(f"{run}: no parameters in it (model-NNNN.params)")
    if (run / INFERENCE_SYMBOL).is_file():
        raise RunError(f"{run}: int8 and bf16 folders can't be trained; start from the original")
    if (run / "config.cfg").is_file():
        keys = tuple(f"network.{key}:" for key in MEANING)
        changed = differences(load_config(run / "config.cfg"), config)
        found = [change for change in changed if change.startswith(keys)]
        if found:
            log.warning(
                "%s was trained with other options, which its parameters need: %s",
                run, "; ".join(found),
            )  # fmt: skip
    return files[-1]


def _take_over(params: tuple[Params, Params], file: Path) -> None:
    loaded, skipped = set(), []
    for group, found in zip(params, read_params(file)):
        for name, value in found.items():
            if name in group and group[name].shape == value.shape:
                group[name] = value.astype("float32")
                loaded.add(name)
            elif name in group:
                skipped.append(f"{name} is {value.shape} there, {group[name].shape} here")
            else:
                skipped.append(f"{name} is not in this network")
    if not loaded:
        raise RunError(f"{file}: none of its parameters fits this network; first: {skipped[0]}")
    initialised = [name for group in params for name in group if name not in loaded]
    log.info(
        "%s: %d parameters loaded, %d initialised, %d skipped",
        file, len(loaded), len(initialised), len(skipped),
    )  # fmt: skip
    for name in initialised:
        log.info("  initialised: %s", name)
    for reason in skipped:
        log.info("  skipped: %s", reason)


def param_shapes(symbol: mx.sym.Symbol, side: int) -> tuple[dict, dict]:
    """Shapes of the arguments but the inputs, and of the auxiliary states, by name.

    ``side`` is any input size that the graph accepts, in pixels.
    """
    shapes, _, aux_shapes = symbol.infer_shape(data=(1, 3, 8 * side, 8 * side))
    arguments = dict(zip(symbol.list_arguments(), shapes))
    for name in INPUTS:
        arguments.pop(name, None)
    return arguments, dict(zip(symbol.list_auxiliary_states(), aux_shapes))
