"""Projects of somebody else's around this app, made of the snippets in `docs/embedding.md`, without `atomproject`."""

import os
import re
import sys
from pathlib import Path

from marketplace_sync.tests.support.processes import Ended, run_program

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = CHECKOUT / "docs" / "embedding.md"
# What every project has, however it came by it.
OWN_SETTINGS = """
import os

SECRET_KEY = "of-a-project-of-somebody-else-0123456789-abcdefghijklmnop"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3", "OPTIONS": {
    "transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL;"}}}
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages"]}}]
STATIC_URL = "static/"
"""
OWN_API = '\nREST_FRAMEWORK |= {"DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"]}\n'


def snippets() -> dict[str, str]:
    """Return the page's Python blocks that begin with the name of the file that they are for."""
    return dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def make_project(tmp_path: Path) -> Path:
    """Write a project and return its folder. Of this checkout only the app is on its path."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "marketplace_sync").symlink_to(CHECKOUT / "marketplace_sync")
    return write_project(tmp_path / "project")


def write_project(folder: Path) -> Path:
    """Write the files of a project that uses the app, and return its folder."""
    found = snippets()
    (folder / "shop").mkdir(parents=True)
    (folder / "shop/__init__.py").touch()
    (folder / "shop/apps.py").write_text(found["apps.py"])
    (folder / "settings.py").write_text(OWN_SETTINGS + found["settings.py"] + OWN_API)
    (folder / "urls.py").write_text(found["urls.py"])
    (folder / "asgi.py").write_text(found["asgi.py"])
    command_line = "from django.core.management import execute_from_command_line as run"
    (folder / "manage.py").write_text(f"import sys\n{command_line}\nrun(sys.argv)\n")
    return folder


def environment(project: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ATOM_", "DATABASE_"))}
    paths = os.pathsep.join(map(str, (project, project.parent / "library")))
    return {**kept, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **settings}


def manage(project: Path, *arguments: str, **settings: str) -> Ended:
    """Run the project's `manage.py` to its end."""
    return run_program([sys.executable, "manage.py", *arguments], environment(project, **settings), project)
