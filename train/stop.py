"""A request to stop, by a signal or a time limit: training saves and ends at the next iteration."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, "FrameType | None"], object]
SAVED = 75  # exit code "saved, start me again": EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@contextmanager
def handling(
    handler: Handler, numbers: Sequence[signal.Signals] = SIGNALS
) -> Iterator[dict[signal.Signals, Any]]:
    """Handle the signals by ``handler`` within the block; yields the previous handlers.

    An ignored SIGHUP, as under ``nohup``, stays ignored.
    """
    before = {
        number: signal.signal(number, handler)
        for number in numbers
        if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN)
    }
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopWish:
    """Notices SIGINT (Ctrl-C), SIGTERM, SIGUSR1, SIGHUP and a time limit; a context manager.

    Parameters
    ----------
    time_limit : float, optional
        Seconds from now.
    """

    def __init__(self, time_limit: float | None = None):
        self._end = None if time_limit is None else time.monotonic() + time_limit
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """Reason to stop; None to continue."""
        if self._signal:
            return self._signal
        if self._end is not None and time.monotonic() >= self._end:
            return "the time limit"
        return None

    def __enter__(self) -> StopWish:
        self._handling = handling(self._notice)
        self._before = self._handling.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._handling.__exit__(None, None, None)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:  # batch systems repeat the other signals
            signal.signal(number, self._before[signal.SIGINT])  # a second Ctrl-C ends at once
