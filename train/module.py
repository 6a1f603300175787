"""``mx.mod.Module`` whose whole state can be read and set: exact, and without pickle."""

from __future__ import annotations

import logging
import os

import mxnet as mx

from configs.schema import Solver

from .params import Params

log = logging.getLogger("train")


class TrainingModule:
    """A bound network with SGD.

    MXNet's Module has no public way to its optimiser's state but a pickle, and none to one device's
    parameters; this class is the only place that reaches into it.

    Parameters
    ----------
    symbol : Symbol
        From :func:`train.params.build_symbol`.
    contexts : list of Context
        Devices; each gets an equal share of every batch.
    data, label : list of DataDesc
        What a batch holds.
    solver : Solver
        The optimiser's constants.
    params : tuple of dict
        Arguments and auxiliary states.
    state : dict
        As :meth:`state` returns it; empty at the start of training.
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
    ):
        self._contexts = contexts
        self._module = mx.mod.Module(
            symbol, ["data"], ["seg_loss_label"], context=contexts, logger=log
        )
        self._module.bind(data, label)
        self._module.init_params(arg_params=params[0], aux_params=params[1])
        # The devices keep the momentum, not the key-value store: it belongs into checkpoints.
        os.environ["MXNET_UPDATE_ON_KVSTORE"] = "0"
        self._module.init_optimizer(
            kvstore="device" if len(contexts) > 1 else None,
            optimizer="sgd",
            optimizer_params={
                "learning_rate": solver.lr,
                "momentum": solver.momentum,
                "wd": solver.weight_decay,
                "clip_gradient": solver.clip_gradient or None,
                # The loss already is a mean on each device; the devices' gradients are summed.
                "rescale_grad": 1 / len(contexts),
            },
        )
        self._optimizer, self._updater = self._module._optimizer, self._module._updater
        self._devices = self._module._exec_group.execs
        self._set_state(state)

    def step(self, batch: mx.io.DataBatch, lr: float) -> mx.nd.NDArray:
        """Train on a batch; return its probabilities (N, L, cells) from before the update."""
        self._optimizer.lr = lr
        self._module.forward_backward(batch)
        self._module.update()
        return self._module.get_outputs()[0]

    def params(self) -> tuple[Params, Params]:
        """Return arguments and auxiliary states; BN statistics are the mean over the devices."""
        mx.nd.waitall()  # queued steps still change the BN statistics that get_params reads
        _, aux_params = self._module.get_params()
        # The devices' weights are equal, but a mean of three equal numbers need not be.
        weights = self._devices[0].arg_dict
        names = self._module._param_names
        return {name: weights[name].copyto(mx.cpu()) for name in names}, aux_params

    def state(self) -> Params:
        """Return what going on exactly needs beside the parameters.

        ``momentum:NAME``, which is equal on all devices, and, where there are several,
        ``deviceK:NAME``, each device's own BN statistics.
        """
        mx.nd.waitall()
        names, count = self._optimizer.idx2name, len(self._contexts)
        state = {
            f"momentum:{names[index]}": value
            for index, value in self._updater.states.items()
            if value is not None and index % count == 0
        }
        if count > 1:
            for number, device in enumerate(self._devices):
                state |= {f"device{number}:{name}": v for name, v in device.aux_dict.items()}
        return state

    def _set_state(self, state: Params) -> None:
        for index, name in self._optimizer.idx2name.items():
            if f"momentum:{name}" in state:
                context = self._contexts[index % len(self._contexts)]
                # A copy: several devices on one CPU would share the array, and update it twice.
                self._updater.states[index] = state[f"momentum:{name}"].copyto(context)
                self._updater.states_synced[index] = True
        for number, device in enumerate(self._devices):
            for name, array in device.aux_dict.items():
                if f"device{number}:{name}" in state:
                    state[f"device{number}:{name}"].copyto(array)
