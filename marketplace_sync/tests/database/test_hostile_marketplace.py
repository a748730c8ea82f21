"""A hostile marketplace, over real sockets: a full sync ends with its reason, and removes nothing."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.utils import timezone

from marketplace_sync.api import throttles
from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.session import writing_session
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.mirror.arrived import HEAD_BYTES
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import DeadLetter, Skill, SyncRun
from marketplace_sync.protocol.limits import MAX_NAME_CHARS, MAX_ROWS
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support import nasty
from marketplace_sync.tests.support.api_actors import agent
from marketplace_sync.tests.support.harness import QUICK, TOKEN, mirror, skill
from marketplace_sync.tests.support.processes import PATIENCE
from marketplace_sync.tests.support.upstream_peers import Script, ScriptedHttp, answer
from marketplace_sync.upstream import market as upstream_market
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.clock import utc_now
from marketplace_sync.upstream.errors import UpstreamError
from marketplace_sync.upstream.handshake import open_connection
from marketplace_sync.upstream.market import MarketClient

pytestmark = pytest.mark.django_db(transaction=True)

# The whole answer to a request for this page, or what writes it.
Reply = Callable[[int], bytes | Script]
STORED = ("kept-1", "kept-2", "kept-3")


def listing(rows: list[Any], **about: Any) -> bytes:
    return answer(200, json.dumps({"skills": rows, **about}).encode())


def rows_of(page: int, count: int = 10) -> list[dict[str, str]]:
    return [{"skill_id": f"p{page}-{number}", "name": "N"} for number in range(count)]


def no_categories(_: int) -> bytes:
    return answer(200, b'{"categories": []}')


def hostile(skills: Reply, categories: Reply = no_categories) -> ScriptedHttp:
    """Return a server with these listings; it answers no single fetch."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(server.asked[-1].target)
        page = int(parse_qs(target.query).get("page", ["1"])[0])
        replies = {"/api/v1/skills": skills, "/api/v1/categories": categories}
        reply = replies.get(target.path, lambda _: answer(500))(page)
        if isinstance(reply, bytes):
            writer.write(reply)
            await writer.drain()
        else:
            await reply(reader, writer)

    server = ScriptedHttp(serve)
    return server


def without_end(head: bytes, piece: bytes, pause: float = 0.0) -> Script:
    """Return a script that sends `head`, and then `piece` for as long as somebody reads."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return script


def store_skills() -> None:
    for skill_id in STORED:
        Skill.objects.create(skill_id=skill_id, name="Stored", synced_at=timezone.now())


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_market, "RETRY_DELAYS", (0.0, 0.0, 0.0))


@dataclass
class FullSyncs:
    runner: SyncRunner
    database: Database

    async def run(self) -> SyncReport:
        async with asyncio.timeout(PATIENCE):
            return await self.runner.run("poll")


@asynccontextmanager
async def full_syncs(server: ScriptedHttp, **changes: Any) -> AsyncIterator[FullSyncs]:
    """Full syncs of this server's listing, into a mirror that has `STORED`."""
    database = Database()
    config = SyncConfig(api_url=server.url, api_token=Secret(TOKEN), **{**QUICK, "max_pages": 50, **changes})
    try:
        await database.control(store_skills)
        async with MarketClient(config) as market:
            lease = await database.control(acquire, "test:1")
            async with writing_session(database, lease, config) as session:
                options = SyncOptions(page_size=config.page_size, max_pages=config.max_pages)
                runner = SyncRunner(market, session, options)
                yield FullSyncs(runner, database)
    finally:
        await database.close()


# Answers that are refused: the full sync fails with a reason.

BOMB = gzip.compress(b"[" + b" " * 30_000_000)
SMALL = listing([{"skill_id": "s", "name": "N"}])
REFUSED: dict[str, tuple[bytes | Script, str]] = {
    "a body drop by drop": (without_end(answer(200, b"[", length=10**6), b" ", 0.01), "no whole answer within 0.5 s"),
    "headers drop by drop": (without_end(b"HTTP/1.1 200 X\r\nA: ", b"x", 0.01), "no whole answer within 0.5 s"),
    "header lines without end": (without_end(b"HTTP/1.1 200 X\r\n", b"A: b\r\n" * 1000), "can't be reached"),
    "a header of a megabyte": (b"HTTP/1.1 200 X\r\nA: " + b"x" * 2**20 + b"\r\n\r\n[]", "can't be reached"),
    "hints without end": (without_end(b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 100), "no whole answer within 0.5 s"),
    "chunks without end": (
        without_end(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b" " * 1024 + b"\r\n"),
        "larger than 1000000 bytes",
    ),
    "trailers without end": (
        without_end(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", b"A: b\r\n" * 1000),
        "the answer broke off",
    ),
    "a packed transfer": (
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + gzip.compress(b"[]"), "can't be reached",
    ),
    "a gzip bomb": (answer(200, BOMB, "Content-Encoding: gzip"), "larger than 1000000 bytes"),
    "a bomb in a bomb": (answer(200, gzip.compress(BOMB), "Content-Encoding: gzip, gzip"), "we did not ask for"),
    "two encodings in two lines": (
        answer(200, gzip.compress(BOMB), "Content-Encoding: gzip", "Content-Encoding: gzip"), "we did not ask for",
    ),
    "brotli": (answer(200, b"\x0b\x02\x80[]\x03", "Content-Encoding: br"), "we did not ask for"),
    "a bomb of deflate": (answer(200, zlib.compress(b" " * 30_000_000), "Content-Encoding: deflate"), "larger than"),
    "junk after deflate": (answer(200, zlib.compress(b"[]") + b"xx", "Content-Encoding: deflate"), "bytes follow"),
    "zstd": (answer(200, b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"), "we did not ask for"),
    "a bomb after the first gzip": (
        answer(200, gzip.compress(b"[]") + BOMB, "Content-Encoding: gzip"), "larger than 1000000 bytes",
    ),
    "gzip members without end": (
        answer(200, gzip.compress(b"") * 20_000, "Content-Encoding: gzip"), "more than 10,000 members",
    ),
    "more rows than anybody has": (
        answer(200, b"[" + b",".join([b"{}"] * (MAX_ROWS + 1)) + b"]"), "100,001 rows in one answer",
    ),
    "an object of a million keys": (
        answer(200, b'{"skills": [], "error": {' + b",".join(b'"%x":0' % n for n in range(99_999)) + b"}}"),
        "reports an error instead",
    ),
    "brackets without end": (answer(200, b"[" * 900_000), "too_deep"),
    "a number without end": (answer(200, b'{"skills": [], "error": ' + b"9" * 900_000 + b"}"), "error"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_an_answer_that_is_refused_fails_the_full_sync_with_its_reason(name: str) -> None:
    reply, reason = REFUSED[name]

    server = hostile(lambda _: reply)
    async with server, full_syncs(server, max_body_bytes=1_000_000, api_timeout=0.5) as syncs:
        report = await syncs.run()
        run = await syncs.database.control(SyncRun.objects.get, pk=report.run_id)
        stored = await syncs.database.control(lambda: set(Skill.objects.values_list("skill_id", flat=True)))
    assert (report.state, run.state, run.removed) == ("failed", "failed", 0)
    assert reason in run.error
    assert len(run.error) < 500
    assert stored == set(STORED)
    # Categories once, and the tries that a page is worth.
    assert len(server.asked) <= 5


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["another host", "the same host", "//another host"])
async def test_no_redirect_is_followed_wherever_it_leads(status: int, where: str) -> None:
    async with ScriptedHttp(SMALL) as thief:
        location = {
            "another host": f"{thief.url}/api/v1/skills", "the same host": "/api/v1/skills?page=1",
            "//another host": f"//127.0.0.1:{thief.port}/",
        }[where]  # fmt: skip
        server = hostile(lambda _: answer(status, b"", f"Location: {location}"))
        async with server, full_syncs(server) as syncs:
            report = await syncs.run()
    assert "redirect" in report.error
    assert thief.asked == []
    assert len(server.asked) == 2


# Answers to the handshake of the stream.

UPGRADE = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
HANDSHAKES: dict[str, bytes | Script] = {
    "header lines without end": without_end(UPGRADE, b"A: b\r\n" * 1000),
    "headers drop by drop": without_end(UPGRADE + b"A: ", b"x", 0.01),
    "a header of a megabyte": UPGRADE + b"A: " + b"x" * 2**20 + b"\r\n\r\n",
    "a status line without end": without_end(b"HTTP/1.1 101 ", b"x" * 1000),
    "hints without end": without_end(b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 100),
    "a body without end": without_end(b"HTTP/1.1 503 X\r\n\r\n", b" " * 65536),
    "a packed body": answer(503, BOMB, "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_hostile_handshake_ends_in_time_with_its_reason(name: str) -> None:
    reply = HANDSHAKES[name]
    async with ScriptedHttp(reply) as server:
        config = SyncConfig(
            ws_url=server.url.replace("http", "ws"), api_token=Secret(TOKEN), **{**QUICK, "connect_timeout": 0.5}
        )
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(UpstreamError) as caught:
                await open_connection(config, Access(config), now=utc_now)
    assert 0 < len(caught.value.reason) < 300
    assert TOKEN not in caught.value.reason


# Listings with wrong totals: their rows are applied, and prove nothing about the skills that are missing.

LIES: dict[str, tuple[Reply, int, str]] = {
    # What is wrong; the requests that it gets at most; a part of the run's reason.
    "pages without end, each with new ids": (lambda page: listing(rows_of(page)), 50, "more than 50 pages"),
    "pages without end, and totals to match": (
        lambda page: listing(rows_of(page), total=10**9, total_pages=10**8), 50, "more than 50 pages",
    ),
    "the same page for ever": (
        lambda page: listing(rows_of(1), total=10**6, total_pages=10**5), 8, "of 100000 repeats what was listed",
    ),
    "two pages by turns for ever": (
        lambda page: listing(rows_of(page % 2), total_pages=10**5), 10, "of 100000 repeats what was listed",
    ),
    "total_pages beyond all integers": (
        lambda page: listing(rows_of(page), total_pages=2**53 - 1), 50, "more than 50 pages",
    ),
    "empty pages, many reported": (
        lambda page: listing(rows_of(1) if page == 1 else [], total=500, total_pages=50), 9, "came empty",
    ),
    "ever more pages": (
        lambda page: listing(rows_of(page), total=10 * page + 10, total_pages=page + 1), 50, "more than 50 pages",
    ),
    "ever fewer skills": (
        lambda page: listing(rows_of(page), total=40 - 10 * page), 5, "the total moved from 30",
    ),
    "pages larger than asked for": (
        lambda page: listing(rows_of(page, 3000), total=10**6), 8, "more than 500 skills (ATOM_SAAS_MAX_PAGES)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
async def test_a_listing_with_wrong_totals_ends_and_proves_nothing(name: str) -> None:
    reply, most, reason = LIES[name]
    server = hostile(reply)
    async with server, full_syncs(server, page_size=10) as syncs:
        report = await syncs.run()
        stored = await syncs.database.control(lambda: set(Skill.objects.values_list("skill_id", flat=True)))
    assert (report.state, report.clean, report.progress.removed) == ("done", False, 0)
    assert reason in report.unclean_reason
    assert set(STORED) <= stored
    pages = [asked for asked in server.asked if asked.target.startswith("/api/v1/skills?")]
    assert len(pages) <= most


@pytest.mark.parametrize(
    "about", [
        {"total": -1, "total_pages": -5}, {"total": 1, "total_pages": 0}, {"total": "x", "total_pages": [1]},
        {"total": 0.5, "total_pages": 1e400}, {"total": 10**400, "total_pages": True}, {"page_size": 0, "page": -1},
        {"total": 25, "total_pages": 1}, {"total": 1, "total_pages": 1, "page_size": 1},
        {"total_pages": 1}, {"total_pages": 2, "page_size": 10},
    ],
    ids=repr,
)  # fmt: skip
async def test_totals_that_are_nonsense_or_too_low_hide_no_page(about: dict[str, Any]) -> None:
    def reply(page: int) -> bytes:
        return listing(rows_of(page) if page < 3 else rows_of(page, 5) if page == 3 else [], **about)

    server = hostile(reply)
    async with server, full_syncs(server, page_size=10) as syncs:
        report = await syncs.run()
    assert report.state == "done"
    assert (report.progress.created, report.progress.removed) == (25, 0)


# Records.


async def test_a_name_of_a_megabyte_costs_a_dead_letter_of_four_kilobytes() -> None:
    rows = [{"skill_id": f"big-{number}", "name": "x" * 2**20} for number in range(20)]
    rows += [{"skill_id": "widest", "name": "\U0001f600" * MAX_NAME_CHARS, "description": "d" * 2**20}]
    server = hostile(lambda _: listing(rows, total=21))
    async with server, full_syncs(server) as syncs:
        report = await syncs.run()
        dead_letters = await syncs.database.control(lambda: list(DeadLetter.objects.values("code", "key", "head")))
        names = await syncs.database.control(lambda: set(Skill.objects.values_list("skill_id", flat=True)))
    assert (report.progress.refused, report.progress.created, report.clean) == (20, 1, True)
    assert {dead_letter["code"] for dead_letter in dead_letters} == {"too_long"}
    assert max(len(dead_letter["head"]) for dead_letter in dead_letters) <= HEAD_BYTES
    assert "widest" in names


# Twins that a careless comparison takes for one: case, composition, width, marks that nobody sees.
TWINS = (
    "Café", "cafe\u0301", "Cafe\u0301", "CAFÉ", "café", "cafe", "Cafe", "ｃａｆｅ", "caf\u00e9\u200b", "\u200bcafé",
    "café ", " café", "caf\u00e9\ufeff", "cafe\u0301\u0327", "cafe\u0327\u0301", "ß", "ss", "SS", "ẞ", "ı", "i", "İ",
    "I", "ﬁ", "fi", "Å", "\u212b", "A\u030a", "Ω", "\u2126", "a/b",
    "a%2Fb", "a%2fb", "a//b", "a\\b", "a/../b", "...", "%", "%00",
    "%2e%2e", "a?b", "a#b", "a;b", "a\tb", "a\nb", "a\r\nb", "\x7f", "\x01", "+", " +", "a b", "a+b", "a%20b", "'", '"',
    "' OR 1=1 --", "/", "//", "a/", "a", "_", "%_", "\u202ea", "😀", "\U0001f1e6", "0", "00", "1e0", "null", "true",
)  # fmt: skip


async def test_ids_that_look_alike_are_different_skills_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # A fast machine requests more than 100 per second.
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))
    assert len(set(TWINS)) == len(TWINS)
    records = [skill(number, skill_id=twin, category=twin) for number, twin in enumerate(TWINS)]
    market = Marketplace(records, [{"name": twin, "description": repr(twin)} for twin in TWINS])
    async with SimulatorServer(market, token=TOKEN, requests_per_minute=0, connects_per_minute=0) as server:
        async with mirror(server) as running:
            await running.until_state("live")
            # By listing, by single fetch, and by stream.
            assert (await running.difference()).in_sync
            async with MarketClient(running.config) as client:
                for number, twin in enumerate(TWINS):
                    found = await client.skill(twin)
                    assert found is not None and found.fields["name"] == f"Skill {number}", twin
            for twin in TWINS[::3]:
                market.delete_skill(twin)
            left = {twin: number for number, twin in enumerate(TWINS) if number % 3}
            await running.until_db(lambda: Skill.objects.count() == len(left), "every third is gone, and no other")
            stored = await running.ask(lambda: dict(Skill.objects.values_list("skill_id", "category__name")))
            assert stored == {twin: twin for twin in left}
            await running.ask(ask_the_api, left)


def ask_the_api(left: dict[str, int]) -> None:
    client = agent()
    for twin in TWINS:
        path = f"/api/skills/{quote(twin, safe='')}/"
        response = client.get(path)
        if twin in left:
            assert response.status_code == 200, (twin, response.content)
            assert (response.json()["skill_id"], response.json()["name"]) == (twin, f"Skill {left[twin]}")
        else:
            assert response.status_code == 404, twin
        category = client.get(f"/api/categories/{quote(twin, safe='')}/")
        assert (category.status_code, category.json().get("description")) == (200, repr(twin)), twin
        listed = client.get("/api/skills/", {"category": twin})
        assert [row["skill_id"] for row in listed.json()["results"]] == ([twin] if twin in left else []), twin


async def test_a_catalogue_of_difficult_values_is_mirrored_exactly() -> None:
    market = Marketplace(list(nasty.skills()), list(nasty.categories()))
    async with SimulatorServer(market, token=TOKEN, requests_per_minute=0, connects_per_minute=0) as server:
        async with mirror(server) as running:
            await running.until_state("live")
            assert (await running.difference()).in_sync
            assert await running.ask(Skill.objects.count) == len(nasty.TRAPS)
