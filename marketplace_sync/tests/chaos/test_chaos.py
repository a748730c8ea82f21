"""Three runs of the campaign of `tests/chaos`, and tests that it notices violations."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from marketplace_sync.simulator.faults import FAULTS
from marketplace_sync.tests.chaos.nursery import CLOCKS
from marketplace_sync.tests.chaos.report import BEGIN, END, text_of
from marketplace_sync.tests.chaos.script import ON_POSTGRES_ALONE, TROUBLES, script_of
from marketplace_sync.tests.support.processes import Program
from marketplace_sync.tests.support.truth import FeedCopy, differences

PAGE = Path(__file__).resolve().parents[3] / "docs" / "faults.md"
# A kill, a stop, a standby, broken networks and a locked database are among them.
FIRST_SEED, RUNS = 1, 3
TIMES = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.500000Z", "2026-01-01T00:00:01Z")


def campaign_on_this_database() -> str:
    if connection.vendor == "sqlite":
        return "sqlite"
    server = connection.settings_dict
    login = quote(str(server["USER"]), safe="") + (
        f":{quote(server['PASSWORD'], safe='')}" if server["PASSWORD"] else ""
    )
    return f"postgres://{login}@{server['HOST']}:{server['PORT'] or 5432}/postgres"


@pytest.mark.database
async def test_mirror_feed_and_status_are_right_after_random_troubles() -> None:
    command = [sys.executable, "-m", "marketplace_sync.tests.chaos", "--runs", str(RUNS), "--seed", str(FIRST_SEED),
               "--database", campaign_on_this_database(), "--logs"]  # fmt: skip
    campaign = Program(command, os.environ, PAGE.parents[1])
    try:
        ended = await campaign.ended(within=270)
    finally:
        campaign.end()
    assert ended.status == 0, ended.out + ended.err
    assert ended.out.count(" ok: ") == RUNS


def test_a_seed_is_one_script() -> None:
    assert str(script_of(7, postgres=True)) == str(script_of(7, postgres=True))
    assert str(script_of(7, postgres=True)) != str(script_of(8, postgres=True))


@pytest.mark.parametrize("on_postgres", [False, True])
def test_hundred_seeds_contain_every_trouble(on_postgres: bool) -> None:
    steps = [step for seed in range(100) for step in script_of(seed, postgres=on_postgres).steps]
    set_ = {step.args["name"] for step in steps if step.do == "fault"}
    done = {step.do for step in steps}
    assert set_ == set(FAULTS)
    assert done >= {name for name in TROUBLES if on_postgres or name not in ON_POSTGRES_ALONE}
    assert on_postgres or not done & ON_POSTGRES_ALONE


def test_copy_of_the_feed_notices_duplicates_unknown_keys_and_old_records() -> None:
    copy = FeedCopy()
    older, between, newer = ({"remote_updated_at": at, "name": "One"} for at in TIMES)
    assert copy.take("skill_created", "s1", between) == ""
    assert "there already" in copy.take("skill_created", "s1", newer)
    assert "not there" in copy.take("skill_updated", "s2", newer)
    assert "not there" in copy.take("skill_deleted", "s2", {})
    assert "after" in copy.take("skill_updated", "s1", older)
    assert copy.take("skill_deleted", "s1", {"deleted_at": TIMES[2]}) == ""
    assert "after" in copy.take("skill_created", "s1", between)


def test_a_difference_names_the_record_and_its_field() -> None:
    assert differences({"a": {"x": 1}, "b": {}}, {"a": {"x": 2}, "c": {}}) == [
        "a.x is 1 and not 2", "b should not be there", "c is missing",
    ]  # fmt: skip


def test_documented_table_matches_the_record() -> None:
    record = json.loads(PAGE.with_suffix(".json").read_text())
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == text_of(record)
    runs = Counter({name: one["runs"] for name, one in record["databases"].items()})
    assert runs.total() >= 200
    assert not any(one["failed"] for one in record["databases"].values())


def test_every_shortened_clock_exists_in_the_product() -> None:
    # `quicken` raises without one of them; this test needs no process for that.
    from marketplace_sync.daemon import core, owning
    from marketplace_sync.engine import schedule
    from marketplace_sync.mirror import lease, status

    assert set(CLOCKS) <= {*vars(core), *vars(owning), *vars(schedule), *vars(lease), *vars(status)}
