"""The learning rate over a run: poly (paper, section 4.1.1), or another ``solver.schedule``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mxnet import lr_scheduler

from configs.schema import Solver


@dataclass(frozen=True)
class Length:
    """Iterations of a whole run, and of an epoch."""

    run: int
    epoch: int


@dataclass(frozen=True)
class Schedule:
    """An entry of :data:`SCHEDULES`.

    Attributes
    ----------
    rate : callable
        ``(solver, done, epoch) -> float``: the factor of ``solver.lr`` at one step. ``done`` is the
        share, 0..1, of the iterations after the warm-up that are over, ``epoch`` counts from 0.
    of_servers : callable or None
        ``(solver, length, **warmup) -> LRScheduler``: the same rule as an object of MXNet, for
        servers that update by themselves (``solver.kvstore = dist_async``) and run none of this
        project's code. MXNet counts updates from 1, so it is one update ahead of ``rate``. None:
        the schedule is refused there.
    """

    rate: Callable[[Solver, float, int], float]
    of_servers: Callable[..., lr_scheduler.LRScheduler] | None = None


def poly(solver: Solver, done: float, epoch: int) -> float:
    """Fall to 0 as a power of the remaining share of the run."""
    return (1 - done) ** solver.power


def step(solver: Solver, done: float, epoch: int) -> float:
    """Multiply by ``step_factor`` every ``step_epochs`` epochs."""
    return solver.step_factor ** (epoch // solver.step_epochs)


def cosine(solver: Solver, done: float, epoch: int) -> float:
    """Fall to 0 by half a cosine."""
    return (1 + math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Schedule] = {
    "poly": Schedule(
        poly,
        lambda solver, length, **warmup: lr_scheduler.PolyScheduler(
            length.run, solver.lr, solver.power, **warmup
        ),
    ),
    "step": Schedule(
        step,
        lambda solver, length, **warmup: lr_scheduler.FactorScheduler(
            solver.step_epochs * length.epoch, solver.step_factor, base_lr=solver.lr, **warmup
        ),
    ),
    "cosine": Schedule(
        cosine,
        lambda solver, length, **warmup: lr_scheduler.CosineScheduler(
            length.run, solver.lr, **warmup
        ),
    ),
}


def learning_rate(solver: Solver, iteration: int, length: Length) -> float:
    """Return the rate of one step.

    Parameters
    ----------
    solver : Solver
        ``lr``, ``warmup``, ``schedule`` and the keys of that schedule.
    iteration : int
        Counted from 0 over the whole run, also after a resume.
    length : Length
        Of the run.
    """
    if iteration < solver.warmup:
        return solver.lr * (iteration + 1) / solver.warmup
    done = (iteration - solver.warmup) / (length.run - solver.warmup)
    return solver.lr * SCHEDULES[solver.schedule].rate(solver, done, iteration // length.epoch)


def server_scheduler(solver: Solver, length: Length, workers: int) -> lr_scheduler.LRScheduler:
    """Return the same rule for servers; they count the updates of all workers."""
    updates = Length(length.run * workers, length.epoch * workers)
    warmup = {"warmup_steps": solver.warmup * workers}
    return SCHEDULES[solver.schedule].of_servers(solver, updates, **warmup)
