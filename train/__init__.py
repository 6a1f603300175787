"""Training: the loop, and its surroundings (run folders, checkpoints, metrics, the machine)."""

from .errors import RunError

__all__ = ["RunError"]
