"""`manage.py runsimulator` in this process: its output, its errors and its end."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from django.core.management import CommandError, call_command
from websockets.asyncio.client import connect

from marketplace_sync.management.commands.runsimulator import Command
from marketplace_sync.simulator import FAULTS
from marketplace_sync.simulator.run import SimulatorOptions, run
from marketplace_sync.simulator.wire import encode


@asynccontextmanager
async def running(options: SimulatorOptions) -> AsyncIterator[list[str]]:
    """Run a simulator in this process, and return its lines, which grow while it runs."""
    lines: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(options, lines.append, stop))
    try:
        yield lines
    finally:
        stop.set()
        await task


async def heard(lines: list[str], pattern: str) -> str:
    async with asyncio.timeout(5):
        while True:
            for line in lines:
                if re.search(pattern, line):
                    return line
            await asyncio.sleep(0.005)


async def address(lines: list[str]) -> str:
    return (await heard(lines, "ATOM_SAAS_API_URL=")).partition("=")[2]


def test_list_faults_prints_descriptions():
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
        (["--skills", "3", "--catalog", "x"], "use one of them"),
        (["--categories", "x"], "needs --catalog or --replay"),
        (["--catalog", "nowhere.jsonl"], r"nowhere\.jsonl can't be read: No such file"),
        (["--replay", "nowhere.jsonl"], r"nowhere\.jsonl can't be read"),
        (["--host", "192.0.2.1"], "can't be opened"),
    ],
)
def test_impossible_option_ends_with_one_line(options: list[str], complaint: str):
    with pytest.raises(CommandError, match=complaint):
        call_command(Command(), "--port", "0", *options, stdout=io.StringIO())


async def test_replay_begins_with_the_first_stream_and_reports_its_end(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    events = [{"type": "skill_update", "data": {"skill_id": f"s{n}", "name": "S", "category": "c"}} for n in range(30)]
    trace.write_bytes(b"\n".join(map(encode, events)))
    async with running(SimulatorOptions(port=0, replay=trace, rate=0)) as lines:
        url = await address(lines)
        assert lines[0] == "Simulated marketplace: 0 skills, 0 categories."
        assert not any("begins, at" in line for line in lines)
        async with connect(f"{url.replace('http', 'ws')}/ws?token=simulator-token", proxy=None) as stream:
            received = [await stream.recv() for _ in range(31)]
            ended = await heard(lines, "Replay has ended")
        await heard(lines, "stream client left; open streams: 0")
    assert "category_update" in received[0]
    assert [text.encode() for text in received[1:]] == [encode(event) for event in events]
    assert re.search(r"30 messages, and 1 for categories that they name, in \d+\.\d s ", ended)
    assert ended.endswith("The catalogue has 30 skills.")
    assert any("stream client connected; open streams: 1" in line for line in lines)
    assert lines[-1] == "Stopped."


async def test_faults_end_after_fault_seconds():
    async with running(SimulatorOptions(port=0, faults=("http-500",), fault_seconds=0.05)) as lines:
        url = await address(lines)
        async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False) as api:
            await heard(lines, "Fault http-500: ")
            await heard(lines, "The faults have ended")
            assert (await api.get("/health")).status_code == 200


async def test_random_changes_arrive_and_a_catalogue_keeps_its_times_until_then(tmp_path: Path):
    catalog = tmp_path / "skills.jsonl"
    record = {"skill_id": "s1", "name": "One", "category": "c", "created_at": "2026-01-01T00:00:00Z"}
    catalog.write_bytes(encode(record))
    options = SimulatorOptions(
        port=0, catalog=catalog, changes_per_second=200, faults=("no-totals",), requests_per_minute=1
    )
    async with running(options) as lines:
        url = await address(lines)
        headers = {"Authorization": "Bearer simulator-token"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False) as api:
            body = (await api.get("/api/v1/skills")).json()
            assert (await api.get("/api/v1/categories")).status_code == 429
        assert body["skills"][0]["created_at"] == record["created_at"]
        assert "total" not in body
        async with connect(f"{url.replace('http', 'ws')}/ws?token=simulator-token", proxy=None) as stream:
            async with asyncio.timeout(5):
                assert [await stream.recv() for _ in range(20)]
    assert any(line.startswith("Fault no-totals: ") for line in lines)
