"""Generated streets: the scene, the things in it, and the layouts of the benchmarks."""
