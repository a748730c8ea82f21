"""For those who watch the mirror by machine: Prometheus' `/metrics` and health checks. Reads, and changes nothing."""
