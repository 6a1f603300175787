"""The official scores of the benchmarks."""
