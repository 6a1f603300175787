"""Annotations of other programs, a module a format: each lists images with their regions."""
