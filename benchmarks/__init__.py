"""Speed and memory of pyconv beside its peers: ``python -m benchmarks``."""
