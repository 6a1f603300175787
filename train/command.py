"""How every command begins and ends: standard streams, Ctrl-C, a user's mistakes, exit codes.

docs/reliability.md lists the exit codes.

Importing it prepares the process: a command's further imports take seconds, and Ctrl-C must end
them with a message too. It imports nothing large.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from configs.errors import ConfigError
from data_iter.errors import DataError

from .errors import RunError, reason

PROBLEMS = 1  # the work is done, and problems were found, or parts had to be left out
MISTAKE, INTERRUPTED = 2, 130
READER_LEFT = 141  # what a shell shows for a program that SIGPIPE ended
NO_MEMORY = (
    "out of memory", "cudaMalloc", "ALLOC_FAILED", "Failed to allocate", "bad_alloc",
    "Insufficient memory",
)  # fmt: skip


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Turn a user's mistake in `main` into one line on stderr and exit code 2.

    An `OSError` (a folder that cannot be written, a full disk) and too little memory count as such.
    Ctrl-C gives 130. If the reader of standard output leaves early, as ``head`` does, the command
    ends silently with 141. Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Python flushes standard output once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return READER_LEFT
        except SystemExit as error:  # what Rich makes of it
            if not isinstance(error.__context__, BrokenPipeError):
                raise
            return READER_LEFT
        except user_errors() as error:
            print(f"error: {sentence(error)}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            if not lacks_memory(error):
                raise
            why = reason(error) if str(error) else ""
            print(f"error: there is not enough memory: {why}", file=sys.stderr)
        return MISTAKE

    return run


def user_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a user's mistake or an obstacle of the machine raises."""
    errors = [ConfigError, DataError, RunError, OSError]
    # Importing symbols imports MXNet. Its error can only occur if something has imported it.
    if "symbols.errors" in sys.modules:
        errors.append(sys.modules["symbols.errors"].NetworkError)
    return tuple(errors)


def lacks_memory(error: Exception) -> bool:
    """Whether Python, NumPy, MXNet, CUDA or OpenCV says that memory is short."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY)


def sentence(error: Exception) -> str:
    """Describe an exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: an exception inside a half-imported library would print a traceback."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _complete_streams() -> None:
    """Open standard streams that the caller has closed: other files would take their numbers."""
    for number, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _is_a_command() -> bool:
    started = getattr(sys.modules.get("__main__"), "__file__", None)
    project = Path(__file__).resolve().parents[1]
    return started is not None and project in Path(started).resolve().parents


if _is_a_command():
    _complete_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        warnings.simplefilter("ignore")  # warnings of other packages must not end a command
