"""The processes of a distributed job: started, listened to, and ended together."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ..errors import RunError
from ..stop import SAVED, handling

POLL = 0.2  # all in seconds
STARTING = 180  # until the first iteration a process may be silent so long (loading libraries)
SILENCE = 25  # afterwards, when it should be heard every second
ENDING = 30  # between the first worker's good end and the last's
HANG_UP = 3  # for processes to leave by themselves
LAST_LINES = 15
# Set here, not inherited by the remote shell that ssh starts.
FORWARDED = ("MXNET_", "OMP_", "CUDA_", "NCCL_", "PS_")


class Member:
    """One process of a job.

    Parameters
    ----------
    role : {"scheduler", "server", "worker"}
        What it does.
    rank : int
        Its number among those of its role.
    host : str or None
        Machine to start it on through ssh; None: this one.
    command_line : list of str
        Program and arguments.
    environment : dict
        Variables beside the inherited ones.
    log : Path
        Where its standard error goes.
    """

    def __init__(
        self,
        role: str,
        rank: int,
        host: str | None,
        command_line: list[str],
        environment: dict[str, str],
        log: Path,
    ):
        self.role, self.log = role, log
        self.name = f"{role} {rank}" + (f" on {host}" if host else "")
        self.steps = 0
        self.heard = self.stepped = time.monotonic()
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._echo = role == "worker" and rank == 0
        if host is None:
            self._command, self._environment = command_line, {**os.environ, **environment}
        else:
            forwarded = {k: v for k, v in os.environ.items() if k.startswith(FORWARDED)}
            words = [f"{k}={v}" for k, v in {**forwarded, **environment}.items()] + command_line
            remote = f"cd {shlex.quote(str(Path.cwd()))} && exec env {shlex.join(words)}"
            self._command = ["ssh", "-o", "BatchMode=yes", host, remote]
            self._environment = dict(os.environ)

    def start(self) -> None:
        """Start the process, away from the signals that the terminal sends to this one."""
        self.heard = self.stepped = time.monotonic()
        self._log = self.log.open("ab", buffering=0)
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=target, daemon=True) for target in (self._listen, self._record)
        ]
        for reader in self._readers:
            reader.start()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to save and end."""
        with suppress(OSError):
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()

    def hang_up(self) -> None:
        """Tell it that the job is over."""
        with suppress(OSError):
            self._process.stdin.close()

    def kill(self, patience: float) -> None:
        """End it, at once after ``patience`` seconds, and read what it still said."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for reader in self._readers:
            reader.join(1)  # a grandchild may keep the pipe open

    def _listen(self) -> None:
        for line in self._process.stdout:
            self.heard = time.monotonic()
            if line.strip().isdigit():  # else a beat, or what a remote shell greets with
                self.steps, self.stepped = int(line), self.heard

    def _record(self) -> None:
        """Copy what it says; where that can't be written, read on: else it would wait for ever."""
        told = False
        with self._log:
            for line in self._process.stderr:
                text = line.decode(errors="replace")
                self.last_lines.append(text)
                if self._echo:
                    _say(text)
                try:
                    self._log.write(text.encode())
                except OSError as error:
                    if not told:
                        _say(f"warning: {self.log}: {error.strerror}; {self.name} goes on\n")
                    told = True


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk, or a reader that has left
        sys.stderr.write(text)


class Job:
    """Runs members until all workers have ended, or one member fails.

    Parameters
    ----------
    members : list of Member
        Scheduler, servers and workers.
    patience : float
        Seconds without an iteration after which the job counts as hung.
    """

    def __init__(self, members: list[Member], patience: float):
        self._members = members
        self._workers = [member for member in members if member.role == "worker"]
        self._patience = patience
        self._signals: list[int] = []
        self._stops_sent = 0

    def run(self) -> int:
        """Return 0, or 75 where the workers saved and ended early.

        Raises
        ------
        RunError
            A member died, hangs or ended with an error; the others have been ended.
        """
        started = []
        with self._noticing_signals():
            try:
                for member in self._members:
                    member.start()
                    started.append(member)
                return self._watch()
            finally:
                for member in started:
                    member.hang_up()
                end = time.monotonic() + HANG_UP
                for member in started:
                    member.kill(max(0, end - time.monotonic()))

    def _watch(self) -> int:
        ended = None
        while True:
            self._pass_signals_on()
            for member in self._members:
                self._check(member)
            codes = [worker.poll() for worker in self._workers]
            if None not in codes:
                return SAVED if SAVED in codes else 0
            if any(member.poll() is not None for member in self._members):
                ended = ended or time.monotonic()
                if time.monotonic() - ended > ENDING:
                    late = self._workers[codes.index(None)]
                    self._fail(late, f"did not end within {ENDING} s of the others")
            time.sleep(POLL)

    def _check(self, member: Member) -> None:
        now, code = time.monotonic(), member.poll()
        if code is None:
            training = any(worker.steps for worker in self._workers)
            limit = SILENCE if training else STARTING
            if now - member.heard > limit:
                self._fail(member, f"hangs: not heard of for {limit} s")
            latest = max(worker.stepped for worker in self._workers)
            if now - latest > self._patience:
                slowest = min(self._workers, key=lambda worker: worker.steps)
                self._fail(slowest, f"hangs after {slowest.steps} iterations")
        elif code < 0:
            self._fail(member, f"was killed by {signal.Signals(-code).name}")
        elif code not in ((0, SAVED) if member.role == "worker" else (0,)):
            time.sleep(POLL)  # it may have failed because another was killed: blame that one
            for other in self._members:
                if (other.poll() or 0) < 0:
                    self._check(other)
            self._fail(member, f"ended with exit code {code}")

    def _fail(self, member: Member, how: str) -> None:
        member.hang_up()
        member.kill(0)
        for line in member.last_lines:
            sys.stderr.write(f"  {member.name} | {line.rstrip()}\n")
        raise RunError(f"{member.name} {how}; the whole job was ended. Its log: {member.log}")

    def _pass_signals_on(self) -> None:
        fresh = self._signals[self._stops_sent :]
        if self._stops_sent and signal.SIGINT in fresh:  # batch systems repeat the others
            raise KeyboardInterrupt  # end without saving
        if fresh and not self._stops_sent:
            sys.stderr.write("stopping: the workers save first; Ctrl-C ends them at once\n")
            for worker in self._workers:
                worker.stop()
        self._stops_sent += len(fresh)

    @contextmanager
    def _noticing_signals(self) -> Iterator[None]:
        def notice(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        with handling(notice):
            yield
