"""Comparisons of rows by seeds: the study file, its runs, their scores, statistics and tables."""
