"""A daemon whose Redis is unreachable."""

import signal

import pytest

from marketplace_sync.daemon import command_desk
from marketplace_sync.models import Skill
from marketplace_sync.tests.database.test_faults_named import reasons
from marketplace_sync.tests.support.harness import marketplace, mirror, skill
from marketplace_sync.tests.support.outages import doorway
from marketplace_sync.tests.support.processes import Environment, programs, settings_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


async def test_unreachable_redis_is_logged_once_and_costs_the_daemon_nothing(
    redis_url: str, program_environment: Environment
) -> None:
    async with marketplace() as server, mirror(server, start=False) as watched, doorway(redis_url) as way:
        with programs(program_environment(**settings_for(server), REDIS_URL=way.url)) as start:
            daemon = start.start("runsync")
            await daemon.prints("state state=live")
            way.shut()
            for number in range(100, 130):
                server.market.put_skill(skill(number))
                await server.drain()
                await watched.until_db(Skill.objects.filter(skill_id=f"skill-{number:05}").exists, "it is followed")
            await daemon.prints("hints_away")
            way.open()
            await daemon.prints("hints_back")
            await watched.until_in_sync()
            assert daemon.err.count("hints_away") == 1
            assert daemon.running and len(server.connects) == 1
            assert await reasons(watched) == ["start"]
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0
