"""The worker processes of a distributed job on MXNet's parameter server (ps-lite).

A process is a worker where the environment says so (``DMLC_ROLE=worker``, set by
``train/launch.py`` or by a cluster's own launcher); without it a job has one worker and no
key-value store. Synchronous workers keep the momentum themselves and the servers only add gradients
up, so each worker holds all that a checkpoint needs. Asynchronous ones (``dist_async``) cannot: the
servers run the optimiser, and a resumed job begins with momentum zero.
"""

from __future__ import annotations

import atexit
import hashlib
import os

import mxnet as mx
import numpy as np

from ..errors import RunError
from . import STEPS_FD


class Workers:
    """The place of this process among the workers; use it as a context manager.

    Parameters
    ----------
    kind : {"dist_sync", "dist_device_sync", "dist_async"}
        How gradients meet, where there are several.

    Attributes
    ----------
    kvstore : KVStore or None
        For ``Module.init_optimizer``; None without a parameter server.
    rank, count : int
        Rank 0 validates and writes the run folder.
    servers_update : bool
        Whether the servers run the optimiser (asynchronous training).
    """

    def __init__(self, kind: str):
        distributed = os.environ.get("DMLC_ROLE") == "worker"
        self.kvstore = mx.kv.create(kind) if distributed else None
        # ps-lite numbers the workers as they come; the launcher's number, if given, stays the same.
        self.rank = int(os.environ.get("DMLC_RANK", self.kvstore.rank)) if distributed else 0
        self.count = self.kvstore.num_workers if distributed else 1
        self.servers_update = distributed and kind == "dist_async"
        # Read by Module.init_optimizer; its own default would leave the momentum on the servers.
        os.environ["MXNET_UPDATE_ON_KVSTORE"] = str(int(self.servers_update))
        self._sums: set[str] = set()
        self._steps = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # MXNet's own clean-up waits for the other workers, which wait for this one: after an error
        # leave without it, once the message is out.
        if kind is not None and self.kvstore is not None:
            atexit.register(os._exit, 2 if issubclass(kind, (ValueError, OSError)) else 1)

    def agree(self, wish: bool) -> bool:
        """Whether any worker wishes to stop: all get the same answer in the same iteration.

        Called once an iteration. Asynchronous workers decide alone.
        """
        self._steps += 1
        self.get_on()
        if self.kvstore is None or self.servers_update:
            return wish
        return bool(self.sum("stop", np.array([wish], np.float32))[0])

    def get_on(self) -> None:
        """Tell the launcher that this process does not stand still, as in a long validation."""
        if STEPS_FD in os.environ:
            os.write(int(os.environ[STEPS_FD]), b"%d\n" % self._steps)

    def gather(self, name: str, arrays: dict[str, mx.nd.NDArray]) -> list[dict[str, mx.nd.NDArray]]:
        """Collect float32 arrays of the same names and shapes from every worker, by rank, exactly.

        Asynchronous workers get their own alone.
        """
        if self.kvstore is None or self.servers_update or not arrays:
            return [arrays]
        order = sorted(arrays)
        flat = np.concatenate([arrays[key].asnumpy().ravel() for key in order])
        table = np.zeros((self.count, flat.size), np.float32)
        table[self.rank] = flat
        ends = np.cumsum([arrays[key].size for key in order])[:-1]
        return [
            {
                key: mx.nd.array(part.reshape(arrays[key].shape))
                for key, part in zip(order, np.split(row, ends))
            }
            for row in self.sum(name, table)
        ]

    def from_first(self, name: str, value: int) -> int:
        """Return worker 0's ``value`` in all synchronous workers; each must call it."""
        if self.kvstore is None or self.servers_update:
            return value
        return int(self.sum(name, np.array([value if self.rank == 0 else 0], np.float32))[0])

    def check_equal(self, what: str, content: bytes) -> None:
        """Raise ``RunError`` unless all synchronous workers bring the same ``content``."""
        digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        rows = self.gather("digest", {"": mx.nd.array(digest.astype(np.float32))})
        differing = [str(r) for r, row in enumerate(rows) if (row[""] != rows[0][""]).sum() > 0]
        if differing:
            raise RunError(
                f"{what} of worker {', '.join(differing)} and of worker 0 differ; do all see the "
                "same data and run folder?"
            )

    def sum(self, name: str, values: np.ndarray) -> np.ndarray:
        """Add ``values``, of one shape, over the synchronous workers; each must call it."""
        if name not in self._sums:
            self.kvstore.init(name, mx.nd.zeros(values.shape))
            self._sums.add(name)
        # A new array every time: the store keeps the pushed one and writes the sum into it.
        total = mx.nd.array(values)
        self.kvstore.pushpull(name, total, out=total)
        return total.asnumpy()
