"""``mx.mod.Module`` whose whole state can be read and set: exact, and without pickle."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch

import mxnet as mx

from configs.schema import Solver

from .distributed.workers import Workers
from .errors import RunError
from .large import split_convolutions
from .network import HEAD
from .params import Params
from .schedule import Length, learning_rate, server_scheduler

log = logging.getLogger("train")


class TrainingModule:
    """A bound network with SGD.

    MXNet's Module exposes its optimiser's state only as a pickle, and one device's parameters not
    at all. This class is the only code that uses the Module's private attributes.

    Parameters
    ----------
    symbol : Symbol
        From :func:`train.network.build_symbol`.
    contexts : list of Context
        Devices; each gets an equal share of every batch.
    data, label : list of DataDesc
        What a batch holds.
    solver : Solver
        The optimiser's constants.
    params : tuple of dict
        Arguments and auxiliary states.
    state : dict
        What :meth:`snapshot` returned; empty at the start of training.
    workers : Workers
        The other processes that train the same network.
    length : Length
        Iterations of the run.
    done : int
        Iterations before this start.
    learns_bn : bool
        Whether the steps learn the BN statistics, as ``symbol`` does.

    Raises
    ------
    RunError
        A pattern of ``solver.freeze`` matches no parameter.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        contexts: list[mx.Context],
        data: list[mx.io.DataDesc],
        label: list[mx.io.DataDesc],
        solver: Solver,
        params: tuple[Params, Params],
        state: Params,
        workers: Workers,
        length: Length,
        done: int,
        learns_bn: bool,
    ):
        self._parts = solver.accumulate
        self._data, self._label = (
            _shortened(described, self._parts) for described in (data, label)
        )
        self._workers = workers
        self.learns_bn = learns_bn
        self._solver, self._length = solver, length
        self._frozen = _matching(solver.freeze, params[0])
        self._contexts = contexts
        _multiply_rates(symbol, params[0], solver)
        self._module = self._bound(symbol, params)
        # The loss already is a mean on each device; the gradients of devices, parts of a batch and
        # synchronous workers are summed. The release divides that sum by the crops instead.
        means = len(contexts) * self._parts
        divisor = solver.batch_size if solver.normalization == "release" else means
        options = {
            "learning_rate": solver.lr,
            "momentum": solver.momentum,
            "wd": solver.weight_decay,
            "clip_gradient": solver.clip_gradient or None,
            "rescale_grad": 1 / divisor / (1 if workers.servers_update else workers.count),
        }
        if workers.servers_update:  # they count every worker's update
            options["lr_scheduler"] = server_scheduler(solver, length, workers.count)
            options["begin_num_update"] = done * workers.count
        self._module.init_optimizer(
            workers.kvstore or ("device" if len(contexts) > 1 else None), "sgd", options
        )
        self._optimizer, self._updater = self._module._optimizer, self._module._updater
        self._set_state(state)

    def _bound(self, symbol: mx.sym.Symbol, params: tuple[Params, Params]) -> mx.mod.Module:
        frozen = set(self._frozen)
        if self._solver.fixed_bn == "all" and not self.learns_bn:
            frozen.update(name for name in params[0] if name.endswith(("/bn_gamma", "/bn_beta")))
        if self._contexts[0].device_type == "cpu":
            batch, *chw = self._data[0].shape
            share = (batch // len(self._contexts), *chw)
            symbol = split_convolutions(symbol, {"data": share}, training=True)
        module = mx.mod.Module(
            symbol,
            ["data"],
            ["seg_loss_label"],
            context=self._contexts,
            fixed_param_names=sorted(frozen),
            logger=log,
        )
        module.bind(self._data, self._label, grad_req="add" if self._parts > 1 else "write")
        module.init_params(arg_params=params[0], aux_params=params[1])
        self._devices = module._exec_group.execs
        return module

    def fix_bn(self, symbol: mx.sym.Symbol, params: tuple[Params, Params]) -> None:
        """Continue with the graph of fixed BN statistics, the same parameters, and the momentum.

        The momentum of a parameter that is now fixed is kept and has no effect.
        """
        mx.nd.waitall()
        self.learns_bn = False
        module = self._bound(symbol, params)
        module.borrow_optimizer(self._module)
        self._module = module

    def step(self, batch: mx.io.DataBatch, iteration: int) -> mx.nd.NDArray:
        """Train on a batch; return its probabilities (N, L, cells) from before the update.

        With ``solver.accumulate`` the parts of the batch pass through the network one after the
        other, and one update uses the sum of their gradients. ``iteration`` counts from 0.
        """
        self._optimizer.lr = learning_rate(self._solver, iteration, self._length)
        if self._parts == 1:
            self._module.forward_backward(batch)
            self._module.update()
            return self._module.get_outputs()[0]
        probabilities = []
        for part in _cut(batch, self._parts):
            self._module.forward_backward(part)
            probabilities.append(self._module.get_outputs()[0].copy())  # the next overwrites it
        self._module.update()
        for device in self._devices:
            for gradient in device.grad_dict.values():
                if gradient is not None:
                    gradient[:] = 0
        return mx.nd.concat(*probabilities, dim=0)

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self._optimizer.lr

    def params(self) -> tuple[Params, Params]:
        """Return arguments and auxiliary states; BN statistics are the mean over the devices."""
        mx.nd.waitall()  # queued steps still change the BN statistics that get_params reads
        _, aux_params = self._module.get_params()
        # The devices' weights are equal, but a mean of three equal numbers need not be.
        weights = self._devices[0].arg_dict
        names = self._module._param_names
        return {name: weights[name].copyto(mx.cpu()) for name in names}, aux_params

    def state(self) -> Params:
        """Return the momentum as ``momentum:NAME``; it is equal on all devices.

        It is empty before the first step, and if the servers keep the momentum.
        """
        mx.nd.waitall()
        names, count = self._optimizer.idx2name, len(self._contexts)
        return {
            f"momentum:{names[index]}": value
            for index, value in (self._updater.states.items() if self._updater else ())
            if value is not None and index % count == 0
        }

    def statistics(self) -> Params:
        """Return each device's own BN statistics as ``deviceK:NAME``."""
        mx.nd.waitall()
        return {
            f"device{number}:{name}": value
            for number, device in enumerate(self._devices)
            for name, value in device.aux_dict.items()
        }

    @property
    def size(self) -> int:
        """Count the weights."""
        return sum(self._devices[0].arg_dict[name].size for name in self._module._param_names)

    def snapshot(self) -> tuple[tuple[Params, Params], Params]:
        """Return the parameters and the state for a checkpoint; every worker has to call this.

        While several devices or workers learn BN statistics, each has its own. The parameters then
        hold their mean; the state holds those of each device of worker K as
        ``workerK.deviceJ:NAME``.
        """
        (arguments, means), state = self.params(), self.state()
        if self.learns_bn and self._workers.count * len(self._contexts) > 1:
            for rank, own in enumerate(self._workers.gather("statistics", self.statistics())):
                state |= {f"worker{rank}.{name}": value for name, value in own.items()}
            table = self._workers.gather("means", means)
            means = {name: sum(own[name] for own in table) / len(table) for name in means}
        return (arguments, means), state

    def digest(self) -> int:
        """Return a checksum of the weights."""
        return zlib.crc32(self._content())

    def check_equal(self, place: tuple[int, ...]) -> None:
        """Raise ``RunError`` unless all synchronous workers are at one place with one network."""
        if self._workers.count > 1:
            content = repr(place).encode() + self._content()
            self._workers.check_equal("progress or parameters", content)

    def _content(self) -> bytes:
        weights = self.params()[0]
        return b"".join(weights[name].asnumpy().tobytes() for name in sorted(weights))

    def _set_state(self, state: Params) -> None:
        if self.learns_bn:
            own = f"worker{self._workers.rank}."
            state = state | {k[len(own) :]: v for k, v in state.items() if k.startswith(own)}
        for index, name in self._optimizer.idx2name.items():
            if self._updater and f"momentum:{name}" in state:
                context = self._contexts[index % len(self._contexts)]
                # A copy: several devices on one CPU would share the array, and update it twice.
                self._updater.states[index] = state[f"momentum:{name}"].copyto(context)
                self._updater.states_synced[index] = True
        for number, device in enumerate(self._devices):
            for name, array in device.aux_dict.items():
                if f"device{number}:{name}" in state:
                    state[f"device{number}:{name}"].copyto(array)


def _shortened(described: list[mx.io.DataDesc], parts: int) -> list[mx.io.DataDesc]:
    """Describe one part of a batch."""
    return [
        mx.io.DataDesc(one.name, (one.shape[0] // parts, *one.shape[1:]), one.dtype, one.layout)
        for one in described
    ]


def _cut(batch: mx.io.DataBatch, parts: int) -> Iterator[mx.io.DataBatch]:
    length = batch.data[0].shape[0] // parts
    for start in range(0, parts * length, length):
        end = start + length
        yield mx.io.DataBatch(
            [a[start:end] for a in batch.data], [a[start:end] for a in batch.label]
        )


def _multiply_rates(symbol: mx.sym.Symbol, names: Params, solver: Solver) -> None:
    """Store the factors where MXNet's optimisers read them: in the variables' attributes."""
    variables = symbol.get_internals()
    for name in names:
        factor = solver.head_lr_mult if name.startswith(HEAD) else solver.backbone_lr_mult
        if factor != 1:
            variables[name]._set_attr(__lr_mult__=str(factor))


def _matching(patterns: tuple[str, ...], names: Params) -> list[str]:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise RunError(f"solver.freeze: no parameter matches '{pattern}'")
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
