"""Run projects of others around this app."""

import os
import sys
from pathlib import Path

from marketplace_sync.tests.support.embedded_project import CHECKOUT, write_project
from marketplace_sync.tests.support.processes import Ended, run_program


def make_project(tmp_path: Path) -> Path:
    """Write a project and return its folder. Of this checkout only the app is on its path."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "marketplace_sync").symlink_to(CHECKOUT / "marketplace_sync")
    return write_project(tmp_path / "project")


def environment(project: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ATOM_", "DATABASE_"))}
    paths = os.pathsep.join(map(str, (project, project.parent / "library")))
    return {**kept, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **settings}


def manage(project: Path, *arguments: str, **settings: str) -> Ended:
    """Run the project's `manage.py` to its end."""
    return run_program([sys.executable, "manage.py", *arguments], environment(project, **settings), project)
