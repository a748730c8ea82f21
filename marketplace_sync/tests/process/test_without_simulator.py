"""An installation without `marketplace_sync/simulator/`: its two commands end with one line, all else works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace_sync.management.optional import SIMULATOR_MISSING

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project without the simulator and the tests."""
    folder = tmp_path_factory.mktemp("without_simulator")
    shutil.copy(PROJECT / "manage.py", folder)
    for package in ("atomproject", "marketplace_sync"):
        left_out = shutil.ignore_patterns("simulator", "tests", "__pycache__")
        shutil.copytree(PROJECT / package, folder / package, ignore=left_out)
    return folder


def manage(installation: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "DATABASE_URL": f"sqlite:///{installation}/mirror.sqlite3", "DJANGO_ENV_FILE": "",
        "DJANGO_DEBUG": "true", "ATOM_SAAS_API_URL": "", "ATOM_SAAS_API_TOKEN": "",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=installation, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [("runsimulator",), ("runsimulator", "--port", "0", "--skills", "3"), ("demo", "--port", "0")]
)
def test_a_command_that_needs_the_simulator_ends_with_one_line(installation: Path, arguments: tuple[str, ...]) -> None:
    ended = manage(installation, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"CommandError: {SIMULATOR_MISSING}\n")


def test_everything_else_works(installation: Path) -> None:
    everything = """
import importlib, pkgutil, marketplace_sync
from django.core.management import call_command
for module in pkgutil.walk_packages(marketplace_sync.__path__, "marketplace_sync."):
    importlib.import_module(module.name)
call_command("check")
call_command("migrate", verbosity=0)
call_command("createagent", "reader", "--maturity", "student")
"""
    ended = manage(installation, "shell", "--no-imports", "-c", everything)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "reader" in ended.stdout
