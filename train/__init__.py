"""Training: the loop and what surrounds it (runs, checkpoints, metrics, the machine)."""

from .errors import RunError

__all__ = ["RunError"]
