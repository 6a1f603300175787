"""Commands, one per file; ``python tools/NAME.py --help`` says what each does."""
