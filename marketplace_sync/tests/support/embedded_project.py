"""Write a Django project around the app from the snippets of docs/embedding.md, without `atomproject`.

Without Django and without the tests' harness: `.ci/wheel.py` uses it too.
"""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = CHECKOUT / "docs" / "embedding.md"
# What every Django project has.
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
