"""`manage.py runsimulator` as a program."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

MANAGE = Path(__file__).resolve().parents[3] / "manage.py"


@contextmanager
def command(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), "runsimulator", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=MANAGE.parent, env={**os.environ},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"ended without {pattern!r}: {lines} {process.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_a_signal_and_exits_0(number: signal.Signals):
    with command("--port", "0", "--token", "t0ken", "--skills", "7") as process:
        lines = lines_until(process, "runsync")
        assert lines[0] == "Simulated marketplace: 7 skills, 8 categories."
        assert "  ATOM_SAAS_API_TOKEN=t0ken" in lines
        url = next(line.partition("=")[2] for line in lines if "ATOM_SAAS_API_URL=" in line)
        headers = {"Authorization": "Bearer t0ken"}
        assert httpx2.get(f"{url}/api/v1/skills", headers=headers, trust_env=False, verify=False).json()["total"] == 7
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == ""


def test_command_simulates_another_deployment_and_prints_its_settings():
    options = (
        "--base-path",
        "/api",
        "--api-prefix",
        "",
        "--api-auth",
        "X-T",
        "--ws-auth",
        "query:key",
        "--ws-path",
        "/l",
    )
    with command("--port", "0", "--token", "t0ken", "--skills", "7", *options) as process:
        lines = [line.strip() for line in lines_until(process, "runsync")]
        url = next(line.partition("=")[2] for line in lines if "ATOM_SAAS_API_URL=" in line)
        assert url.endswith("/api")
        for line in ("ATOM_SAAS_API_PREFIX=", "ATOM_SAAS_API_AUTH=X-T", "ATOM_SAAS_WS_AUTH=query:key"):
            assert line in lines
        assert f"ATOM_SAAS_WS_URL={url.replace('http', 'ws').removesuffix('/api')}/l" in lines
        answer = httpx2.get(f"{url}/skills", headers={"X-T": "t0ken"}, trust_env=False, verify=False)
        assert answer.json()["total"] == 7
        assert httpx2.get(f"{url}/health", trust_env=False, verify=False).status_code == 200


def test_ctrl_c_ends_the_command_while_connections_are_open():
    """One that has asked nothing, one kept alive, one in the middle of a request, and one that never reads."""
    with command("--port", "0", "--token", "t0ken", "--skills", "1000") as process, contextlib.ExitStack() as open_ones:
        port = int(next(line for line in lines_until(process, "runsync") if "API_URL=" in line).rpartition(":")[2])
        whole = b"GET /api/v1/skills?page_size=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t0ken\r\n\r\n"
        for sent in (b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /hea", whole * 20):
            connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            connection.sendall(sent)
            if b"/health " in sent or sent == whole * 20:
                assert connection.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


def test_a_busy_port_is_one_clear_line_and_exit_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command("--port", str(port)) as process:
            assert process.wait(timeout=20) == 1
            complaint = process.stderr.read().strip()
    assert (
        complaint
        == f"CommandError: Port {port} on 127.0.0.1 is taken; choose another with --port (0 takes a free one)."
    )
