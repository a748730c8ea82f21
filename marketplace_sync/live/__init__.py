"""The change feed to those who follow it: one hub a web process reads the feed once for all its clients (law 12)."""
