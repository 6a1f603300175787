"""The evaluation report and training curves."""
