"""Parameters of other projects under this project's names."""
