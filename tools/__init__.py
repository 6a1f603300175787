"""Commands, one per file; ``python tools/NAME.py --help`` explains each one."""
