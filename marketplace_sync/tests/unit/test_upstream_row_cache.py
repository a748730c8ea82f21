"""Rows that were read before: what is kept of them, and that nothing is lost where it can't be kept."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from marketplace_sync.conf import SyncConfig
from marketplace_sync.engine.merge import record_fingerprint
from marketplace_sync.protocol.events import KnownRow, SkillPage, SkillRecord
from marketplace_sync.protocol.listing import decode_skill_page, records_of
from marketplace_sync.simulator.catalog import generate
from marketplace_sync.tests.fuzz.checks import NOW
from marketplace_sync.upstream import row_cache
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.row_cache import RowCache

SKILLS = generate(60, 1, NOW).skills


@pytest.fixture
def cache() -> Iterator[RowCache]:
    made = RowCache()
    yield made
    made.close()


def read(cache: RowCache, skills: list[dict[str, Any]]) -> SkillPage:
    return decode_skill_page(json.dumps({"skills": skills}).encode(), server_now=NOW, known=cache)


def remember(cache: RowCache, page: SkillPage) -> None:
    rows = zip(page.digests, page.skills, strict=True)
    cache.remember([(digest, row) for digest, row in rows if isinstance(row, SkillRecord)])


def unread(page: SkillPage) -> list[str]:
    return [row.skill_id for row in page.skills if isinstance(row, KnownRow)]


def test_what_was_remembered_is_not_read_again_until_a_byte_of_it_changes(cache: RowCache) -> None:
    first = read(cache, SKILLS)
    assert unread(first) == []
    remember(cache, first)
    changed = [{**SKILLS[0], "version": "9.9.9"}, *SKILLS[1:]]
    again = read(cache, changed)
    assert unread(again) == [skill["skill_id"] for skill in SKILLS[1:]]
    assert [record.fields["version"] for record in records_of(again)] == [skill["version"] for skill in changed]
    assert list(records_of(again))[1:] == list(first.skills)[1:]
    known = {row.skill_id: row.fingerprint for row in again.skills if isinstance(row, KnownRow)}
    assert known == {
        row.skill_id: record_fingerprint(row) for row in first.skills[1:] if isinstance(row, SkillRecord)
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"updated_at": None}, {"updated_at": "2999-01-01T00:00:00Z"}, {"code": ...}],
    ids=["no time", "one far ahead", "short"],
)
def test_a_row_that_does_not_say_all_or_not_for_ever_is_read_each_time(
    cache: RowCache, changes: dict[str, Any]
) -> None:
    row = {name: value for name, value in {**SKILLS[0], **changes}.items() if value is not ...}
    for _ in range(3):
        page = read(cache, [row, SKILLS[1]])
        remember(cache, page)
    assert unread(page) == [SKILLS[1]["skill_id"]]


def test_what_is_around_the_rows_says_nothing_of_them(cache: RowCache) -> None:
    """Another page, or another order: known by its own bytes."""
    remember(cache, read(cache, SKILLS))
    body = json.dumps([*reversed(SKILLS), {"name": 3}, SKILLS[0]]).encode()
    page = decode_skill_page(body, server_now=NOW, known=cache)
    assert unread(page) == [skill["skill_id"] for skill in (*reversed(SKILLS), SKILLS[0])]
    assert (len(page.broken), page.rows, len(page.digests)) == (1, 62, 61)


def generation(number: int) -> list[dict[str, Any]]:
    return [{**skill, "name": f"n{number}"} for skill in SKILLS]


def test_once_full_it_knows_what_it_has_and_takes_no_more() -> None:
    with closing(RowCache(max_bytes=32_768)) as cache:
        for number in range(9):
            remember(cache, read(cache, generation(number)))
        known = [len(unread(read(cache, generation(number)))) for number in range(9)]
    assert known[0] == 60
    assert known == sorted(known, reverse=True)
    assert known[-1] == 0


def test_once_full_of_what_is_told_no_more_it_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with closing(RowCache(max_bytes=32_768, judged_rows=600)) as cache:
        number = 0
        while not cache._full:
            remember(cache, read(cache, generation(number)))
            number += 1
        for _ in range(12):  # of these every second one is known, so they stay
            page = read(cache, [*generation(0)[:30], *generation(number)[30:]])
            remember(cache, page)
            assert len(unread(page)) == 30
        rounds = 0
        while not unread(page := read(cache, generation(number))):
            remember(cache, page)
            rounds += 1
            assert rounds < 30
        assert len(unread(page)) == 60
        assert not unread(read(cache, generation(0)))
    assert caplog.text.count("rows_forgotten") == 1


def test_one_that_breaks_knows_nothing_and_goes_on(cache: RowCache) -> None:
    page = read(cache, SKILLS)
    remember(cache, page)
    assert cache._file is not None
    cache._file.execute("DROP TABLE row")
    assert cache.find(page.digests) == {}
    remember(cache, page)
    assert len(cache.find(page.digests)) == len(SKILLS)


def test_once_closed_it_keeps_nothing_and_raises_nothing() -> None:
    """The thread of a task that was cancelled may come after the end."""
    cache = RowCache()
    page = read(cache, SKILLS)
    cache.close()
    remember(cache, page)
    assert cache.find(page.digests) == {}
    cache.close()


def test_any_thread_may_use_it(cache: RowCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "_PATIENCE", 60)  # a busy machine may let a thread wait while it holds the lock
    page = read(cache, SKILLS)
    missing: list[int] = []

    def work() -> None:
        for _ in range(30):
            remember(cache, page)
            missing.append(len(SKILLS) - len(cache.find(page.digests)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == [0] * 120


def test_one_that_was_spoiled_on_disk_knows_nothing_and_goes_on(cache: RowCache) -> None:
    page = read(cache, SKILLS)
    for spoiled in ("CAST(x'ff' AS TEXT)", "NULL"):
        remember(cache, page)
        assert cache._file is not None
        cache._file.execute(f"UPDATE row SET skill_id = {spoiled}")
        assert cache.find(page.digests) == {}
    remember(cache, page)
    assert len(cache.find(page.digests)) == len(SKILLS)


def test_while_another_holds_it_nothing_is_known_and_nobody_waits_for_long(
    cache: RowCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_cache, "_PATIENCE", 0.001)
    page = read(cache, SKILLS)
    remember(cache, page)
    with cache._lock:
        assert unread(read(cache, SKILLS)) == []
    assert len(unread(read(cache, SKILLS))) == len(SKILLS)


def test_more_rows_than_go_into_a_statement_are_known(cache: RowCache) -> None:
    many = [{**SKILLS[0], "skill_id": f"s{number}"} for number in range(2 * row_cache._AT_ONCE + 1)]
    remember(cache, read(cache, many))
    assert unread(read(cache, many)) == [skill["skill_id"] for skill in many]


def test_a_known_row_is_read_by_the_time_of_its_own_page(cache: RowCache) -> None:
    """A server's clock may go back, and what was believable is too far ahead then."""
    remember(cache, read(cache, SKILLS))
    body = json.dumps(SKILLS).encode()
    earlier = decode_skill_page(body, server_now=NOW - timedelta(days=3650), known=cache)
    assert len(unread(earlier)) == len(SKILLS)
    assert {record.updated for record in records_of(earlier)} == {None}


async def test_it_ends_with_the_client_that_has_it() -> None:
    cache = RowCache()
    async with MarketClient(SyncConfig(), rows=cache) as market:
        page = read(cache, SKILLS)
        await market.remember([(page.digests[0], record) for record in records_of(page)][:1])
        assert len(cache.find(page.digests)) == 1
    assert cache.find(page.digests) == {}
