"""The user error of this package; it imports nothing."""


class NetworkError(ValueError):
    """A network that cannot be built from the arguments given."""
