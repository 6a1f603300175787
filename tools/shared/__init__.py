"""Shared by rooms and commands: pairs of files, pictures, parallel work, probability maps."""
