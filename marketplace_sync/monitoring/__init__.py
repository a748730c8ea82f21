"""Prometheus metrics and health checks: what machines watch the mirror by. Reads, and changes nothing."""
