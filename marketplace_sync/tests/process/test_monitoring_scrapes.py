"""Metrics as Prometheus reads them: promtool, and several web processes."""

import re
import shutil
import subprocess
import sys
import urllib.request
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from marketplace_sync.api import authentication
from marketplace_sync.daemon import publisher
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.status import DEAD_AFTER_SECONDS
from marketplace_sync.models import Command, LeaseRow, SyncRun
from marketplace_sync.simulator.malformed import PAYLOADS
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.database.test_monitoring_metrics import settled, shown_by
from marketplace_sync.tests.support.harness import marketplace, mirror, skill
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program, programs, settings_for, until
from marketplace_sync.tests.support.scrapes import Scrape, forget_answers, scrape

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(publisher, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(publisher, "COUNT_EVERY_SECONDS", 0.05)
    settings.METRICS_PUBLIC = "true"
    forget_answers()
    authentication.failed_keys.clear()


def check_with_promtool(text: str) -> None:
    if not shutil.which("promtool"):
        without_service("promtool")
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


async def test_every_series_exists_from_the_start_and_promtool_accepts_them() -> None:
    async with marketplace() as server, mirror(server) as running:
        first = await shown_by(running, lambda _: True, "the daemon has written")
        await running.until_state("live")
        server.market.put_skill(skill(100))
        for payload, binary in PAYLOADS:
            server.send_raw(payload, binary=binary)
        server.send_raw('{"type": "' + "x" * 500 + '", "data": {}}')
        server.send_raw('{"type": "evil\\"} 1\\natom_mirror_evil{a=\\"", "data": {}}')
        await shown_by(running, lambda now: settled(now) == len(PAYLOADS) + 3, "all messages are settled")
        await server.drop_connections()
        last = await shown_by(running, lambda now: now("connection_attempts_total", outcome="opened") == 2, "back")
        assert last.values.keys() == first.values.keys()
        assert not [name for name in last.names if name.endswith("_created")]
        check_with_promtool(last.text)


def test_metrics_from_tables_are_served_without_a_daemon() -> None:
    at = database_now()
    SyncRun.objects.create(reason="poll", state="held", held_count=30, started_at=at, finished_at=at, is_clean=True)
    Command.objects.create(action="sync", requested_by="x", requested_at=at, expires_at=at)
    now = scrape(Client())
    assert (now("daemon_up"), now("lease_epoch"), now("standby_daemons")) == (0, 0, 0)
    assert (now("held_runs"), now("held_removals")) == (1, 30)
    assert now("last_clean_sync_timestamp_seconds") == pytest.approx(at.timestamp())
    assert now("last_message_timestamp_seconds") == now("daemon_metrics_timestamp_seconds") == 0
    assert now("commands_open", action="sync", state="pending") == 1
    assert now.of_the_daemon == ""
    check_with_promtool(now.text)


# Processes.


async def test_two_web_processes_serve_equal_metrics_also_after_a_kill(
    program_environment: Environment,
) -> None:
    async with SimulatorServer(Marketplace([skill(n) for n in range(25)]), requests_per_minute=0) as server:
        environment = program_environment(**settings_for(server), METRICS_PUBLIC="true")
        with programs(environment) as starter:
            daemon = starter.start("runsync")
            webs = [
                Program([sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--port=0", "--lifespan=off"],
                        environment, MANAGE.parent)
                for _ in range(2)
            ]  # fmt: skip
            starter.started += webs
            ports = [(await one.prints(r"running on http://127\.0\.0\.1:(\d+)"))[1] for one in webs]

            async def both() -> list[Scrape]:
                return [Scrape(await ask(fetched, f"http://127.0.0.1:{port}/metrics")) for port in ports]

            async def agree() -> bool:
                one, other = await both()
                caught_up = bool(one.of_the_daemon) and one("syncs_total", outcome="clean") == 1
                return caught_up and one.of_the_daemon == other.of_the_daemon

            await until(agree, "both serve what the daemon has written")
            daemon.kill()
            # As if the time had passed: its heartbeat is too old.
            await ask(LeaseRow.objects.update, renewed_at=F("renewed_at") - timedelta(seconds=DEAD_AFTER_SECONDS + 1))

            async def dead() -> bool:
                return all(now("daemon_up") == 0 and not now.of_the_daemon for now in await both())

            await until(dead, "both report the daemon as down")
            for now in await both():
                assert now("connection_state", state="not_running") == 1
                assert now("last_clean_sync_timestamp_seconds") > 0
                assert not re.search(re.escape(server.token), now.text)


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())
