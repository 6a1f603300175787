"""The learning rate over a run: poly (paper, section 4.1.1), or what ``solver.schedule`` says."""

from __future__ import annotations

import math

import mxnet as mx

from configs.schema import Solver


def learning_rate(solver: Solver, iteration: int, iterations: int, epoch_length: int) -> float:
    """Return the rate of one step.

    Parameters
    ----------
    solver : Solver
        ``lr``, ``schedule`` and the keys of that schedule.
    iteration : int
        Counted from 0 over the whole run, whatever was done before a resume.
    iterations, epoch_length : int
        Of the whole run, and of an epoch.
    """
    done = iteration / iterations
    if solver.schedule == "poly":
        return solver.lr * (1 - done) ** solver.power
    if solver.schedule == "step":
        return solver.lr * solver.step_factor ** (iteration // (solver.step_epochs * epoch_length))
    return solver.lr * (1 + math.cos(math.pi * done)) / 2  # cosine


def server_scheduler(
    solver: Solver, iterations: int, epoch_length: int
) -> mx.lr_scheduler.LRScheduler:
    """Return the same rule as an object of MXNet, for servers that update by themselves.

    They know nothing of this project. MXNet counts updates from 1, so it is one update ahead of
    :func:`learning_rate`, but for the steps, which agree.
    """
    if solver.schedule == "poly":
        return mx.lr_scheduler.PolyScheduler(iterations, solver.lr, solver.power)
    if solver.schedule == "step":
        step = solver.step_epochs * epoch_length
        return mx.lr_scheduler.FactorScheduler(step, solver.step_factor, base_lr=solver.lr)
    return mx.lr_scheduler.CosineScheduler(iterations, solver.lr)
