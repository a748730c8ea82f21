"""Benchmarks of the mirror beside simpler programs for the same work. `make bench`, or one part: bench/README.md."""
