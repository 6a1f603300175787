"""A wish to stop, from a signal or a clock: training saves and ends at the next iteration."""

from __future__ import annotations

import signal
import time
from types import FrameType

SAVED = 75  # exit code "saved, start me again": EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


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
        """Say why to stop, or None to go on."""
        if self._signal:
            return self._signal
        if self._end is not None and time.monotonic() >= self._end:
            return "the time limit"
        return None

    def __enter__(self) -> StopWish:
        self._before = {
            number: signal.signal(number, self._notice)
            for number in SIGNALS
            if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN)  # nohup
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if number == signal.SIGINT:  # batch systems repeat the others
            signal.signal(number, self._before[number])  # so that a second Ctrl-C ends at once
