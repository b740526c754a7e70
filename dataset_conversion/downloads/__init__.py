"""Download the benchmarks, and say where the data come from."""
