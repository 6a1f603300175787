"""The user error of this package; it imports nothing."""


class DataError(ValueError):
    """An image, a label, a list or a folder that cannot be used."""
