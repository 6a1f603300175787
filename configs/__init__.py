"""Typed configuration files, and the class tables of the data sets."""

from .errors import ConfigError

__all__ = ["ConfigError"]
