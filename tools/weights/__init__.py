"""Other projects' parameters under this project's names."""
