"""One process of a job that ``train/launch.py`` started, here or on another machine.

The launcher runs it as ``python -m train.distributed.node``; nothing imports it.
Standard input and output belong to the launcher: it sends ``stop`` and hangs up when it ends, and
hears a line every second from a process that lives. What people read goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from ..machine import PROJECT
from . import STEPS_FD

BEAT = b"alive\n"
BEAT_SECONDS = 1.0


def run() -> int:
    """Be what ``DMLC_ROLE`` says; a worker trains with the arguments of ``train_model.py``."""
    sys.argv[0] = str(PROJECT / "train" / "train_model.py")  # for --help and the run's record
    worker = os.environ["DMLC_ROLE"] == "worker"
    if not worker:
        # Servers and scheduler go when the workers have: these still have to agree on the end.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    _answer_the_launcher()
    if worker:
        from ..train_model import main

        return main()
    import mxnet  # noqa: F401  serves, and exits when the workers are done

    return 0


def _answer_the_launcher() -> None:
    launcher = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ[STEPS_FD] = str(launcher)
    threading.Thread(target=_beat, args=(launcher,), daemon=True).start()
    threading.Thread(target=_obey, daemon=True).start()


def _beat(launcher: int) -> None:
    while True:
        try:
            os.write(launcher, BEAT)
        except OSError:
            os._exit(1)  # the launcher is gone
        time.sleep(BEAT_SECONDS)


def _obey() -> None:
    while os.read(sys.stdin.fileno(), 100):
        while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            time.sleep(0.1)  # until training listens
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(1)  # the launcher is gone


if __name__ == "__main__":
    sys.exit(run())
