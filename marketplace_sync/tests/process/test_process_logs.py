"""The log of the daemon and a web server as processes: each line is one JSON object, with its ids."""

import json
import signal
import sys
from collections import Counter
from typing import Any

import httpx2
import pytest

from marketplace_sync.mirror.commands import submit_command
from marketplace_sync.models import Command, LeaseRow, SyncRun
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program, programs, settings_for, until

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]


def lines(program: Program) -> list[dict[str, Any]]:
    """Return the lines on stderr; a line that is no JSON object fails."""
    return [json.loads(line) for line in program.err.splitlines()]


async def test_log_lines_carry_their_connection_run_and_command(
    program_environment: Environment,
) -> None:
    async with marketplace() as server:
        environment = program_environment(**settings_for(server), LOG_FORMAT="json")
        with programs(environment) as started:
            daemon = started.start("runsync")
            await daemon.prints('"event": "state".*"state": "live"')
            asked = await ask(submit_command, Command.Action.SYNC, by="command line")

            async def answered() -> bool:
                await ask(asked.refresh_from_db)
                return asked.finished_at is not None

            await until(answered, "the full sync of the command has ended")
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0
            logged = lines(daemon)
    lease = await ask(LeaseRow.objects.get)
    runs = await ask(lambda: set(SyncRun.objects.values_list("pk", flat=True)))
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in logged:
        by_event.setdefault(line["event"], []).append(line)
    assert {line["epoch"] for line in logged if line["event"] != "standing_by"} == {lease.epoch}
    assert {line["connection"] for line in by_event["stream_opened"]} == {1}
    assert {line["run"] for line in by_event["sync_ended"]} == runs
    assert [line["run"] for line in by_event["sync_began"]] == [line["run"] for line in by_event["sync_ended"]]
    assert by_event["sync_began"][-1]["commands"] == [asked.pk]
    assert "commands" not in by_event["sync_began"][0]
    for event in ("command_accepted", "command_ended"):
        assert [line["command"] for line in by_event[event]] == [asked.pk]
    # Lines that belong to none have no id.
    assert [name for line in by_event["stopping"] for name in ("connection", "run", "command") if name in line] == []


async def test_clients_cannot_flood_the_log_of_a_web_process(
    program_environment: Environment, unused_tcp_port: int
) -> None:
    environment = program_environment(LOG_FORMAT="json")
    command = [sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--port", str(unused_tcp_port),
               "--lifespan", "off", "--no-access-log"]  # fmt: skip
    program = Program(command, environment, MANAGE.parent)
    try:
        await program.prints("Uvicorn running")
        url = f"http://127.0.0.1:{unused_tcp_port}/api/skills/"
        async with httpx2.AsyncClient(trust_env=False) as client:
            for _ in range(200):
                assert (await client.get(url)).status_code == 401
            for _ in range(200):
                assert (await client.get(url, headers={"Host": "of.somebody.else"})).status_code == 400
        program.send(signal.SIGTERM)
        await program.ended()
        logged = lines(program)
    finally:
        program.end()
    # The counts of suppressed lines come at the end of the minute; this test does not wait for them.
    shown = Counter((line["logger"], line["level"]) for line in logged)
    assert shown["django.security.DisallowedHost", "warning"] == 60
    assert shown["django.request", "warning"] == 60
    assert shown["uvicorn.access", "info"] == 0
