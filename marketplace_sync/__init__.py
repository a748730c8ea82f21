"""A local mirror of a remote marketplace: always right, and nearly always seconds fresh."""
