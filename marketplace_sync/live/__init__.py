"""The change feed for connected clients. One hub per web process reads the feed once for all of them (law 12)."""
