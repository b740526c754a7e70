"""The five benchmarks."""
