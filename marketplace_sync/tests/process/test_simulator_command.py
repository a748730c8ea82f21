"""`manage.py runsimulator`: what it says, what it refuses, how it ends."""

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
from django.core.management import CommandError, call_command
from websockets.asyncio.client import connect

from marketplace_sync.management.commands.runsimulator import Command
from marketplace_sync.simulator import FAULTS
from marketplace_sync.simulator.run import SimulatorOptions, run
from marketplace_sync.simulator.wire import encode

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


@asynccontextmanager
async def running(plan: SimulatorOptions) -> AsyncIterator[list[str]]:
    """The lines that a simulator in this process says, while it runs."""
    said: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(plan, said.append, stop))
    try:
        yield said
    finally:
        stop.set()
        await task


async def heard(said: list[str], pattern: str) -> str:
    async with asyncio.timeout(5):
        while True:
            for line in said:
                if re.search(pattern, line):
                    return line
            await asyncio.sleep(0.005)


async def address(said: list[str]) -> str:
    return (await heard(said, "ATOM_SAAS_API_URL=")).partition("=")[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop_and_exits_0(number: signal.Signals):
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


def test_the_command_plays_another_deployment_and_says_its_settings():
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


def test_faults_are_listed_with_what_they_do():
    out = io.StringIO()
    call_command(Command(), "--list-faults", stdout=out)
    listed = dict(line.split(maxsplit=1) for line in out.getvalue().splitlines())
    assert listed == {name: fault.description for name, fault in FAULTS.items()}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--fault", "mut"], r"no fault 'mut'\. Did you mean 'mute'\? Faults: refuse, "),
        (["--skills", "-1"], "--skills must be 0 or more"),
        (["--rate", "nan"], "--rate must be 0 or more"),
        (["--port", "70000"], "--port must be from 0"),
        (["--token", ""], "--token must not be empty"),
        (["--skills", "3", "--catalog", "x"], "give one of them"),
        (["--categories", "x"], "goes with --catalog or --replay"),
        (["--catalog", "nowhere.jsonl"], r"nowhere\.jsonl can't be read: No such file"),
        (["--replay", "nowhere.jsonl"], r"nowhere\.jsonl can't be read"),
        (["--host", "192.0.2.1"], "can't be opened"),
    ],
)
def test_what_cannot_work_is_one_clear_line(options: list[str], complaint: str):
    with pytest.raises(CommandError, match=complaint):
        call_command(Command(), "--port", "0", *options, stdout=io.StringIO())


async def test_a_replay_begins_with_the_first_stream_and_says_how_it_ended(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    events = [{"type": "skill_update", "data": {"skill_id": f"s{n}", "name": "S", "category": "c"}} for n in range(30)]
    trace.write_bytes(b"\n".join(map(encode, events)))
    async with running(SimulatorOptions(port=0, replay=trace, rate=0)) as said:
        url = await address(said)
        assert said[0] == "Simulated marketplace: 0 skills, 0 categories."
        assert not any("begins, at" in line for line in said)
        async with connect(f"{url.replace('http', 'ws')}/ws?token=simulator-token", proxy=None) as stream:
            received = [await stream.recv() for _ in range(31)]
            ended = await heard(said, "Replay has ended")
        await heard(said, "stream client left; open streams: 0")
    assert "category_update" in received[0]
    assert [text.encode() for text in received[1:]] == [encode(event) for event in events]
    assert re.search(r"30 messages, and 1 for categories they made, in \d+\.\d s .*; 30 skills now", ended)
    assert any("stream client connected; open streams: 1" in line for line in said)
    assert said[-1] == "Stopped."


async def test_faults_can_end_while_the_simulator_goes_on():
    async with running(SimulatorOptions(port=0, faults=("http-500",), fault_seconds=0.05)) as said:
        url = await address(said)
        async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False) as api:
            await heard(said, "Fault http-500: ")
            await heard(said, "The faults have ended")
            assert (await api.get("/health")).status_code == 200


async def test_made_up_changes_arrive_and_a_catalogue_keeps_its_times_until_then(tmp_path: Path):
    catalog = tmp_path / "skills.jsonl"
    record = {"skill_id": "s1", "name": "One", "category": "c", "created_at": "2026-01-01T00:00:00Z"}
    catalog.write_bytes(encode(record))
    plan = SimulatorOptions(
        port=0, catalog=catalog, changes_per_second=200, faults=("no-totals",), requests_per_minute=1
    )
    async with running(plan) as said:
        url = await address(said)
        headers = {"Authorization": "Bearer simulator-token"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False) as api:
            body = (await api.get("/api/v1/skills")).json()
            assert (await api.get("/api/v1/categories")).status_code == 429
        assert body["skills"][0]["created_at"] == record["created_at"]
        assert "total" not in body
        async with connect(f"{url.replace('http', 'ws')}/ws?token=simulator-token", proxy=None) as stream:
            async with asyncio.timeout(5):
                assert [await stream.recv() for _ in range(20)]
    assert any(line.startswith("Fault no-totals: ") for line in said)
