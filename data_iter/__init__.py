"""From the official folders of a data set to batches of augmented crops, in threads."""

from .errors import DataError

__all__ = ["DataError"]
