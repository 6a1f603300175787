"""The benchmarks' rules on submissions, and their archives."""
