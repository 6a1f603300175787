"""Work through a list on all cores, in threads or in processes; a terminal shows the progress."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from train.errors import RunError
from train.machine import allowed_cores

POOL_FILES, PROCESS_FILES = 14, 2  # that a pool has open beside others, and each process of it

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], what: str, threads: int | None = None
) -> list[Result]:
    """Apply ``work`` to all items; return the results in their order. The first exception ends it.

    OpenCV decodes images, and NumPy does most of its work, outside the interpreter lock.
    """
    with ThreadPoolExecutor(threads or allowed_cores()) as pool:
        return list(_shown(pool.map(work, items), what, len(items)))


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], what: str, jobs: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """Apply ``work``, which holds the interpreter lock, to all items; yields each when done.

    ``work`` is a function of a module (or a partial of one); items and results are pickled.
    Raises ``RunError`` as :func:`processes` does.
    """
    with processes(min(jobs or allowed_cores(), max(len(items), 1))) as pool:
        of_future = {pool.submit(work, item): item for item in items}
        for future in _shown(as_completed(of_future), what, len(items)):
            yield of_future.pop(future), future.result()


@contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; at the end of the block its queue is dropped and it ends.

    Raises
    ------
    RunError
        This process may not open as many files as they need, or one of them was killed, most
        likely because memory was short.
    """
    _check_files(jobs)
    # Forking this process would copy locks that its threads hold.
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(jobs, context, _begin_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise RunError("a worker process was killed (out of memory?)") from None
    except (EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise RunError(
            f"the worker processes could not be started; are {files} open files (ulimit -n) enough?"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check_files(jobs: int) -> None:
    """Check the limit of open files first: otherwise the process server prints a traceback."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len([*Path("/proc/self/fd").iterdir()]) + POOL_FILES + PROCESS_FILES * jobs
    if needed > limit:
        raise RunError(
            f"{jobs} worker process{'es' * (jobs > 1)} would need {needed} open files, and the "
            f"limit is {limit}: raise it (ulimit -n), or take fewer (--jobs)"
        )


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the process that started the pool has ended in any way, then end as well."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _shown(results: Iterable[Result], what: str, total: int) -> Iterable[Result]:
    console = Console(stderr=True, markup=False)
    return track(
        results, what, total, console=console, transient=True, disable=not console.is_terminal
    )
