"""The files of `deploy/`: as far as they can be looked at without a container engine or a running systemd."""

import fnmatch
import importlib.util
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.support.locks import locked

PROJECT = Path(__file__).resolve().parents[3]
DEPLOY = PROJECT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OURS = ("web-1", "web-2", "daemon-1", "daemon-2", "migrate")


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile, its lines joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def compose() -> dict[str, Any]:
    """Return the compose file with its variables' defaults filled in and the anchors' own entries left out."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DEPLOY / "compose.yml").read_text())
    return {name: part for name, part in yaml.safe_load(text).items() if not name.startswith("x-")}


def test_the_image_runs_as_nobody_and_has_a_health_check() -> None:
    last = instructions()[[number for number, (word, _) in enumerate(instructions()) if word == "FROM"][-1] :]
    found = dict(last)
    assert re.fullmatch(r"\d{4,}:\d{4,}", found["USER"]), "a number: an orchestrator must see that it is not root"
    assert "healthcheck.py" in found["HEALTHCHECK"]
    assert found["CMD"].startswith("["), "no shell between the signal and the program"
    assert json.loads(found["CMD"])[:3] == ["python", "-m", "uvicorn"]


def test_the_image_is_made_of_what_is_pinned_and_of_files_that_are_there() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (PROJECT / source).exists(), source
                assert f"!{source}" in ignored, f"{source} is not let into the build"
    assert "--require-hashes -r /tmp/runtime.txt" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("name", [".env", ".secret_key", "db.sqlite3", ".git/config", "deploy/secrets/settings.env"])
def test_no_secret_can_get_into_the_image(name: str) -> None:
    let_in = False
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and (fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/")):
            let_in = line.startswith("!")
    assert not let_in


def test_the_compose_file_is_one() -> None:
    if importlib.util.find_spec("compose_spec") is None:
        without_service("compose-spec")
    from compose_spec import PyCompose

    found = PyCompose.from_json(json.dumps(compose()))
    found.validate()
    assert set(found.to_spec().services) == set(compose()["services"])
    wrong = compose()
    wrong["services"]["web-1"]["secrets"].append("of-nobody")
    with pytest.raises(ValueError, match="of-nobody"):
        PyCompose.from_json(json.dumps(wrong)).validate()


def test_every_service_is_confined_and_bounded() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert 0 < service["pids_limit"] <= 500, name
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        # What a program does that starts as root and goes on as another user; nothing that reaches beyond it.
        allowed = {"CHOWN", "SETGID", "SETUID"} if name == "nginx" else set()
        assert set(service.get("cap_add", ())) <= allowed, name
        assert not service.keys() & {"privileged", "pid", "ipc", "network_mode", "devices"}, name


def test_every_process_of_ours_is_started_again() -> None:
    services = compose()["services"]
    for name in OURS:
        service = services[name]
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert "ports" not in service, f"{name} is reached through nginx alone"
    assert services["daemon-1"] == services["daemon-2"]
    assert services["web-1"] == services["web-2"]


def test_nothing_starts_before_the_migrations_and_nginx_knows_every_web_process() -> None:
    services = compose()["services"]
    for name in OURS[:-1]:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    servers = re.findall(r"^\s*server (\S+):8000 ", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
    assert servers == [name for name in services if name.startswith("web-")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_that_run_on_are_always_started_again_and_stop_in_time(unit: Path) -> None:
    text = unit.read_text()
    if "Type=oneshot" not in text:
        for line in ("Restart=always", "TimeoutStopSec=10s", "StartLimitIntervalSec=0"):
            assert f"\n{line}\n" in text
    for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text
    assert re.search(r"^MemoryMax=\d+[MG]$", text, re.MULTILINE) and re.search(r"^TasksMax=\d+$", text, re.MULTILINE)
    assert "LoadCredential=settings.env:/etc/marketplace-mirror/settings.env" in text
    assert "DJANGO_ENV_FILE=%d/settings.env" in text
    wanted = (DEPLOY / "systemd/marketplace-mirror.target").read_text()
    assert unit.name.replace(".service", "").rstrip("@") in wanted or "Type=oneshot" in text


def test_what_the_image_installs_is_what_runs_here() -> None:
    """Each package that running needs is installed at its version, so what the tests show is true for the image."""
    for pin in locked("runtime"):
        if pin.applies:
            assert version(pin.name) == pin.version, pin.name
