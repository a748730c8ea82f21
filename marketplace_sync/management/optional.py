"""The part of this app that an installation may leave out: the simulator."""

from importlib.util import find_spec

SIMULATOR_MISSING = (
    "This installation of marketplace_sync has no simulator. Run this command in a clone of the project's repository."
)


def has_simulator() -> bool:
    """Return whether `marketplace_sync.simulator` is installed, without importing it."""
    return find_spec("marketplace_sync.simulator") is not None
