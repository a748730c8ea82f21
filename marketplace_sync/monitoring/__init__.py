"""Prometheus metrics and health checks, for programs that monitor the mirror. Reads, and changes nothing."""
