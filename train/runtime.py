"""What every command needs first: import this module before anything that imports MXNet."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from configs.errors import ConfigError
from data_iter.errors import DataError

from .errors import RunError


def command(main: Callable[..., int]) -> Callable[..., int]:
    """Turn a user's mistake in `main` into one line on stderr and exit code 2.

    An `OSError` (a folder that cannot be written, a full disk) counts as one; Ctrl-C gives 130.
    Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv=None) -> int:
        try:
            return main(argv)
        except _user_errors() as error:
            print(f"error: {_sentence(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run


def _user_errors() -> tuple[type[Exception], ...]:
    errors = [ConfigError, DataError, RunError, OSError]
    # Importing symbols imports MXNet; only when something else has can its error be on its way.
    if "symbols.errors" in sys.modules:
        errors.append(sys.modules["symbols.errors"].NetworkError)
    return tuple(errors)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
