"""The files of deploy/, checked by the tools that read them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.unit.test_deploy_files import DEPLOY, PROJECT, UNITS, compose

# What systemd calls "OK" is below 2.0; it gives the exposure times ten.
MOST_EXPOSED = 20


def tool(name: str) -> str:
    """Where this program is: beside Python, or on the path. Without it, the test is passed over."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        without_service(name)
    assert found is not None
    return found


def run(*command: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    ran = run(tool("hadolint"), "deploy/Dockerfile")
    assert (ran.returncode, ran.stdout) == (0, "")


def test_secrets_are_files_and_stand_in_no_environment() -> None:
    found = compose()
    used = {secret for service in found["services"].values() for secret in service.get("secrets", ())}
    assert used == set(found["secrets"])
    for name, service in found["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            secret = re.search(r"PASSWORD|TOKEN|SECRET|KEY|DATABASE_URL|REDIS_URL", variable)
            assert not secret or variable.endswith("_FILE"), f"{name}: {variable}"
            if str(value).startswith("/run/secrets/"):
                assert str(value).removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
    for secret in found["secrets"].values():
        kept_out = run("git", "check-ignore", "--quiet", "--no-index", str(DEPLOY / secret["file"]))
        assert kept_out.returncode == 0 or not (PROJECT / ".git").exists()


def with_paths(unit: Path, folder: Path) -> Path:
    """Return the unit with the paths of this machine: the check looks for its programs."""
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/marketplace-mirror/.venv/bin/python", sys.executable))
    return copy


def test_the_units_are_valid(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    shutil.copy(DEPLOY / "systemd/marketplace-mirror.target", tmp_path)
    files = [str(with_paths(unit, tmp_path)) for unit in UNITS]
    ran = run(analyze, "verify", str(tmp_path / "marketplace-mirror.target"), *files)
    ours = [line for line in ran.stderr.splitlines() if "marketplace-mirror" in line]
    assert (ran.returncode, ours) == (0, [])
    broken = tmp_path / "marketplace-mirror-migrate.service"
    broken.write_text(broken.read_text().replace("ProtectSystem=strict", "ProtectSystem=somewhat"))
    assert "somewhat" in run(analyze, "verify", str(broken)).stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_expose_little(unit: Path) -> None:
    ran = run(tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit))
    assert ran.returncode == 0, ran.stdout[-2000:]
