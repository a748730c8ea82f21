"""Following the change feed: joined in the middle, cut off, come back: no gap, nothing twice, whatever is filtered."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client as HttpClient
from websockets.exceptions import ConnectionClosed

from marketplace_sync.live import hub as hub_module
from marketplace_sync.live import messages
from marketplace_sync.live.hub import Hub
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.retention import forget_changes
from marketplace_sync.models import FeedChange, LeaseRow
from marketplace_sync.tests.support.live_feed import (
    PATIENCE,
    QUICK,
    Visitor,
    agent_key,
    ask,
    bearer,
    category,
    change,
    changes_to,
    messages_until,
    new_pen,
    put,
    rate,
    remove,
    until,
    web,
)

pytestmark = pytest.mark.django_db(transaction=True)


def seqs(changes: list[dict[str, Any]]) -> list[int]:
    return [change["seq"] for change in changes]


async def test_stored_changes_come_first_then_ready_then_new_ones() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1", version="1"), put("s2"))
    async with web() as server, server.client(key, "?after=1") as client:
        stored, ready = await messages_until(client)
        assert seqs(stored["changes"]) == [2] and ready == {"type": "ready", "seq": 2}
        await ask(pen.write, change("s1", version="2"))
        (live,) = await changes_to(client, 3)
        at = live.pop("at")
        assert live == {
            "seq": 3, "kind": "skill_updated", "key": "s1", "source": "stream",
            "data": {"version": "2", "remote_updated_at": live["data"]["remote_updated_at"]},
        }  # fmt: skip
        assert at.endswith("Z")


async def test_without_after_only_new_changes_are_sent() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1"))
    async with Visitor(Hub(QUICK), headers=bearer(key)) as visitor:
        assert await visitor.message() == {"type": "ready", "seq": 1}
        await ask(pen.write, put("s2"))
        assert seqs(await visitor.changes_to(2)) == [2]


async def test_feed_of_an_empty_mirror_starts_at_0() -> None:
    key = await ask(agent_key)
    async with Visitor(Hub(QUICK), "after=0", bearer(key)) as visitor:
        assert await visitor.message() == {"type": "ready", "seq": 0}
        pen = await ask(new_pen)
        await ask(pen.write, put("s1"))
        assert seqs(await visitor.changes_to(1)) == [1]


@pytest.mark.parametrize("after", [0, 1, 150, 399, 400])
async def test_from_any_place_no_change_is_missed_or_repeated(after: int) -> None:
    """400 stored changes: behind the ring, within it, at its edges; and 20 that come meanwhile."""
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, *[put(f"s{number}") for number in range(400)])
    limits = replace(QUICK, page=50, recent_rows=60)
    async with web(limits) as server, server.client(key, f"?after={after}") as client:
        writing = asyncio.create_task(ask(lambda: [pen.write(put(f"t{number}")) for number in range(20)]))
        found = await changes_to(client, 420)
        await writing
    assert seqs(found) == list(range(after + 1, 421))


async def test_reconnect_after_any_message_misses_and_repeats_nothing() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    found: list[int] = []
    async with web(replace(QUICK, page=7, recent_rows=10)) as server:
        for round_ in range(12):
            await ask(pen.write, *[put(f"s{round_}-{number}") for number in range(9)])
            async with server.client(key, f"?after={len(found)}") as client:
                for _ in range(round_ % 3):
                    message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
                    found += seqs(message.get("changes", []))
        async with server.client(key, f"?after={len(found)}") as client:
            if len(found) < 108:
                found += seqs(await changes_to(client, 108))
    assert found == list(range(1, 109))


async def test_pruned_or_future_number_closes_with_4410() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, *[put(f"s{number}") for number in range(10)])
    await ask(forget_changes, pen.lease, keep_days=30, keep_rows=4)
    hub = Hub(replace(QUICK, page=2))
    for after in (0, 5, 11, 10**17):
        async with Visitor(hub, f"after={after}", bearer(key)) as visitor:
            code, reason = await visitor.closed()
            assert code == 4410 and reason.startswith(f"{after} is ")
    async with Visitor(hub, "after=6", bearer(key)) as visitor:
        assert seqs(await visitor.changes_to(10)) == [7, 8, 9, 10]


async def test_client_ahead_of_this_process_but_not_of_the_feed_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has seen 2 elsewhere; this process looks every minute."""
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1"))
    hub = Hub(replace(QUICK, poll=60))
    async with Visitor(hub, headers=bearer(key)) as first:
        assert await first.message() == {"type": "ready", "seq": 1}
        await ask(pen.write, put("s2"))
        async with Visitor(hub, "after=2", bearer(key)) as second:
            assert await second.message() == {"type": "ready", "seq": 2}
            await ask(pen.write, put("s3"))
            hub._hinted.set()
            assert seqs(await first.changes_to(3)) == [2, 3]
            assert seqs(await second.changes_to(3)) == [3]


async def test_restarted_feed_closes_its_clients_with_4410() -> None:
    """A database was restored: the client's number is ahead of the newest."""
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1"), put("s2"))
    async with Visitor(Hub(replace(QUICK, heartbeat=0.1)), "after=2", bearer(key)) as visitor:
        assert await visitor.message() == {"type": "ready", "seq": 2}
        await ask(lambda: (FeedChange.objects.filter(seq=2).delete(), LeaseRow.objects.update(feed_seq=1)))
        event = await visitor.next_event()
        while event["type"] == "websocket.send":
            event = await visitor.next_event()
        assert (event["code"], event["reason"]) == (4410, "2 is ahead of the newest, 1; list the catalogue again")


async def test_heartbeat_carries_the_number_reached_despite_filters() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    hub = Hub(replace(QUICK, heartbeat=0.05))
    async with Visitor(hub, "kind=skill_deleted", bearer(key)) as visitor:
        assert await visitor.message() == {"type": "ready", "seq": 0}
        await ask(pen.write, put("s1"), put("s2"))
        message = await visitor.message()
        while message["seq"] < 2:
            message = await visitor.message()
        assert message == {"type": "heartbeat", "seq": 2}


async def test_values_of_one_filter_are_alternatives_and_different_filters_combine() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, category("s1"), put("s1"), put("s2"), put("s3"))
    await ask(pen.write, rate("s1", 4.0, 1), rate("s2", 4.0, 1))
    await ask(pen.write, remove("s1"), remove("s3"))
    expected = {
        "skill_id=s1": [2, 5, 7],
        "skill_id=s1&skill_id=s3": [2, 4, 5, 7, 8],
        "kind=rating_changed&kind=skill_deleted": [5, 6, 7, 8],
        "kind=rating_changed&skill_id=s2": [6],
        "kind=category_created": [1],
        "kind=category_created&skill_id=s1": [],
    }
    for page in (2, 100):  # read from the database in pages, and out of the ring
        hub = Hub(replace(QUICK, page=page))
        for query, numbers in expected.items():
            async with Visitor(hub, f"after=0&{query}", bearer(key)) as visitor:
                found, message = [], await visitor.message()
                while message["type"] == "changes":
                    found += seqs(message["changes"])
                    message = await visitor.message()
                assert (query, found) == (query, numbers)
                assert message == {"type": "ready", "seq": 8}


async def test_category_filter_includes_skills_that_enter_or_leave_it() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    hub = Hub(QUICK)
    async with Visitor(hub, "category=a", bearer(key)) as visitor, Visitor(hub, "after=0", bearer(key)) as everything:
        assert await visitor.message() == {"type": "ready", "seq": 0}
        for events in (
            [put("in-a", category="a"), put("in-b", category="b"), put("in-none")],
            [rate("in-a", 3.0, 1), rate("in-b", 3.0, 1), rate("in-none", 3.0, 1)],
            [change("in-a", category="b"), change("in-b", category="a")],
            [change("in-b", version="2"), change("in-a", version="2"), category("b", description="b")],
            [remove("in-a"), remove("in-b"), category("a", description="a")],
        ):
            await everything.changes_to(await ask(pen.write, *events))
        found: list[dict[str, Any]] = []
        while not found or (found[-1]["kind"], found[-1]["key"]) != ("skill_deleted", "in-b"):
            found += (await visitor.message()).get("changes", ())
    assert [(change["kind"], change["key"]) for change in found] == [
        ("category_created", "a"),
        ("skill_created", "in-a"),
        ("rating_changed", "in-a"),
        ("skill_updated", "in-a"),
        ("skill_updated", "in-b"),
        ("skill_updated", "in-b"),
        ("category_updated", "a"),
        ("skill_deleted", "in-a"),
        ("skill_deleted", "in-b"),
    ]


async def test_feed_is_read_once_for_all_clients_and_not_at_all_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, read = [], hub_module.changes_after
    encoded, encode = [], messages._encode
    monkeypatch.setattr(
        hub_module, "changes_after", lambda *args, **kwargs: looks.append(args) or read(*args, **kwargs)
    )
    monkeypatch.setattr(messages, "_encode", lambda change: encoded.append(change.seq) or encode(change))
    key, pen = await ask(agent_key), await ask(new_pen)
    hub = Hub(replace(QUICK, poll=60))
    visitors = [Visitor(hub, headers=bearer(key)) for _ in range(20)]
    for visitor in visitors:
        await visitor.__aenter__()
        assert (await visitor.message())["type"] == "ready"
    looks.clear()
    await ask(pen.write, put("s1"), put("s2"))
    hub._hinted.set()
    for visitor in visitors:
        assert seqs(await visitor.changes_to(2)) == [1, 2]
    assert (len(looks), encoded) == (1, [1, 2])
    for visitor in visitors:
        await visitor.__aexit__()
    assert (hub.subscribers, hub.running) == (0, False)
    await ask(pen.write, put("s3"))
    async with Visitor(hub, "after=2", bearer(key)) as visitor:
        assert seqs(await visitor.changes_to(3)) == [3]


async def test_brief_reconnect_needs_no_query_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pages, read = [], hub_module._read_message
    monkeypatch.setattr(hub_module, "_read_message", lambda *args: pages.append(args[0]) or read(*args))
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, *[put(f"s{number}") for number in range(100)])
    hub = Hub(replace(QUICK, page=10))
    for after, queries in ((100, 0), (99, 0), (90, 0), (89, 1)):
        async with Visitor(hub, f"after={after}", bearer(key)) as visitor:
            if after < 100:
                assert seqs(await visitor.changes_to(100)) == list(range(after + 1, 101))
            assert await visitor.message() == {"type": "ready", "seq": 100}
        assert (after, len(pages)) == (after, queries)


async def test_api_and_websocket_send_the_same_changes() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1", version="1"), category("c"))
    await ask(pen.write, rate("s1", 4.5, 2), change("s1", version="2"))
    await ask(pen.write, remove("s1"))
    async with Visitor(Hub(QUICK), "after=0", bearer(key)) as visitor:
        by_socket = await visitor.changes_to(4)
    answer = await ask(HttpClient().get, "/api/changes/?after=0", headers=dict(bearer(key)))
    assert answer.json()["results"] == by_socket


async def test_messages_stay_within_the_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_CHARS", 2000)
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(
        pen.write, *[put(f"s{number}", code="x" * size) for number, size in enumerate([10, 900, 10, 5000, 10, 10])]
    )
    for page in (3, 100):
        async with Visitor(Hub(replace(QUICK, page=page)), "after=0", bearer(key)) as visitor:
            found = []
            while (message := await visitor.message())["type"] == "changes":
                assert len(message["changes"]) == 1 or len(json.dumps(message)) < 2300
                found += seqs(message["changes"])
            assert found == [1, 2, 3, 4, 5, 6]


async def test_client_that_does_not_read_is_closed_with_4429_and_delays_no_other() -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    limits = replace(QUICK, send_timeout=0.3)
    async with web(limits) as server, server.client(key, compression=None) as slow, server.client(key) as quick:
        await messages_until(slow)
        await messages_until(quick)
        slow.transport.pause_reading()
        newest, seen = 0, []
        while server.hub.subscribers == 2:
            newest = await ask(pen.write, *[put(f"s{newest + number}", code="x" * 100_000) for number in range(10)])
            seen += await changes_to(quick, newest)
            assert newest < 1000, "100 MB are under way to somebody who does not read"
        assert seqs(seen) == list(range(1, newest + 1))
        slow.transport.resume_reading()
        got = []
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(PATIENCE):
                while True:
                    got += seqs(json.loads(await slow.recv()).get("changes", []))
        assert (caught.value.rcvd.code, caught.value.rcvd.reason.split(".")[0]) == (4429, "The client reads too slowly")
        assert got == list(range(1, len(got) + 1))
        async with server.client(key, f"?after={len(got)}") as back:
            assert seqs(await changes_to(back, newest)) == list(range(len(got) + 1, newest + 1))


async def test_client_that_never_reads_again_is_aborted() -> None:
    """uvicorn would wait for ever with its close until all was taken."""
    key, pen = await ask(agent_key), await ask(new_pen)
    limits = replace(QUICK, send_timeout=0.2, close_timeout=0.2)
    # Neither side's pings may end it before.
    options: dict[str, Any] = {"compression": None, "close_timeout": 0, "ping_interval": None}
    async with web(limits, ws_ping_interval=None) as server, server.client(key, **options) as slow:
        await messages_until(slow)
        slow.transport.pause_reading()
        newest = 0
        while server.hub.subscribers:
            newest = await ask(pen.write, *[put(f"s{newest + number}", code="x" * 100_000) for number in range(10)])
            assert newest < 1000
        await until(lambda: not server.connections, "the server has let its connection go")


async def test_no_heartbeat_while_the_database_is_unreachable_and_changes_continue_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    read, away = hub_module.changes_after, []

    def look(*args: Any, **kwargs: Any) -> Any:
        if away:
            away.append(None)
            raise OperationalError("server closed the connection unexpectedly")
        return read(*args, **kwargs)

    monkeypatch.setattr(hub_module, "changes_after", look)
    hub = Hub(SubscriptionLimits(poll=0.01, gap=0.005, heartbeat=0.2, retry=0.01))
    async with Visitor(hub, headers=bearer(key)) as visitor:
        assert (await visitor.message())["type"] == "ready"
        away.append(None)
        await until(lambda: len(away) > 3, "it is asked again and again")
        await until(lambda: not hub.read_recently, "a heartbeat has passed")
        unread_before = visitor.unread
        tries = len(away)
        await until(lambda: len(away) > tries + 50, "more than two heartbeats have passed, at 0.01 s a try")
        assert visitor.unread == unread_before
        await ask(pen.write, put("s1"))
        away.clear()
        message = await visitor.message()
        while message["type"] == "heartbeat":
            message = await visitor.message()
        assert seqs(message["changes"]) == [1]


async def test_client_that_catches_up_has_no_connection_between_pages(postgres: None) -> None:
    """A client that stalls while catching up has no connection; the process has only that of the hub."""
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, *[put(f"s{number}", code="x" * 100_000) for number in range(200)])

    def now() -> object:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return cursor.fetchone()[0]

    def others() -> int:
        """Sessions begun since; one of an earlier test may be ending still."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' AND backend_start > %s",
                [began],
            )
            return int(cursor.fetchone()[0])

    began = await ask(now)
    limits = replace(QUICK, page=5, send_timeout=PATIENCE)
    async with web(limits) as server, server.client(key, "?after=0", compression=None) as slow:
        slow.transport.pause_reading()
        thread = server.hub.client_thread
        last, same = None, 0
        while same < 20:  # until it moves no more
            queued = thread._pool._work_queue.qsize(), thread._waiting
            last, same = queued, same + 1 if queued == last == (0, 0) else 0
            await asyncio.sleep(0.02)
        assert await ask(others) == 1
        slow.transport.resume_reading()
        assert seqs(await changes_to(slow, 200)) == list(range(1, 201))


async def test_crashed_hub_disconnects_its_clients_and_the_next_client_starts_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = await ask(agent_key)
    hub = Hub(QUICK)
    async with Visitor(hub, headers=bearer(key)) as visitor:
        assert (await visitor.message())["type"] == "ready"
        with monkeypatch.context() as patch:
            patch.setattr(hub_module, "changes_after", lambda *args, **kwargs: 1 / 0)
            assert (await visitor.closed())[0] == 1011
    async with Visitor(hub, headers=bearer(key)) as visitor:
        assert (await visitor.message())["type"] == "ready"


def test_the_tests_start_with_a_free_lease() -> None:
    assert acquire("tester").epoch == 1
