"""Figures per minute of a daemon that is killed."""

import pytest

from marketplace_sync.mirror.state import state_row
from marketplace_sync.tests.database.test_figures import all_minutes, all_totals
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import Environment, programs, settings_for, until


@pytest.mark.django_db(transaction=True)
async def test_after_a_kill_the_sum_of_all_minutes_equals_the_totals(
    program_environment: Environment,
) -> None:
    async with marketplace() as server:
        with programs(program_environment(**settings_for(server))) as started:
            daemon = started.start("runsync")
            vote = 0

            async def some_arrived() -> bool:
                nonlocal vote
                vote += 1
                server.market.rate("skill-00001", vote % 5 + 1)
                return bool((await ask(state_row)).received >= 20)

            await until(some_arrived, "20 messages are counted")
            daemon.kill()
            totals = await ask(all_totals)
            assert totals["received"] >= 20
            assert await ask(all_minutes) == totals
