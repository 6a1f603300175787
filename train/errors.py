"""The user error of this package; it imports nothing."""


class RunError(ValueError):
    """A run folder, a model or a machine that cannot be used."""
