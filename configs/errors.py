"""The user error of this package; it imports nothing."""


class ConfigError(ValueError):
    """A configuration or an option that cannot be used."""
