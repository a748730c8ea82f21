"""A local mirror of a remote marketplace: always correct, and nearly always seconds fresh."""

# The only place of the version: the package, the User-Agent header and CHANGELOG.md follow it.
__version__ = "0.2.0"
