"""Law 14, with real programs: whatever a marketplace does, no output and no row contains the token."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest
from django.apps import apps
from django.utils import timezone
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.daemon.database import Database
from marketplace_sync.models import DeadLetter, SyncRun, WebSocketState
from marketplace_sync.tests.support.harness import Mirror, skill
from marketplace_sync.tests.support.processes import Environment, programs, until
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp, answer, ws_peer

pytestmark = pytest.mark.django_db(transaction=True)

# A URL must quote it, a regular expression escape it.
TOKEN = "tok-4711/secret+part=%41&x#~end"
QUOTED = quote(TOKEN, safe="")
# Its halves too: a token that is cut off in the middle is disclosed in part.
FORBIDDEN = [
    form.lower() for form in (TOKEN, QUOTED, quote(TOKEN), "4711/secret", "4711%2fsecret", "part=%41&", "%2541")
]
ECHO = f"no {TOKEN} and no {QUOTED}, Bearer {TOKEN}, /ws?token={QUOTED}"


def sightings(text: str) -> list[str]:
    """Return where the token is in a text, with its surroundings."""
    lower = text.lower()
    return [f"{form}: {text[max(0, at - 60) : at + 60]!r}" for form in FORBIDDEN if (at := lower.find(form)) >= 0]


def stored() -> Iterator[tuple[str, str]]:
    """Yield every value of every row of every table as text, with its place."""
    for model in apps.get_models():
        for row in model._base_manager.values():
            for column, value in row.items():
                text = bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
                yield f"{model._meta.label}.{column}", text


def sightings_in_the_database() -> list[str]:
    return [f"{where}: {found}" for where, text in stored() for found in sightings(text)]


def update(**data: Any) -> str:
    return json.dumps({"type": "skill_update", "data": data})


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


BODY = ECHO.encode()
# In the order in which they are given. What is worth another try is tried again after 0.5 s, 1 s and 2 s; so that it
# does not come to the last, every third answer is one that is not. A full sync reads categories and skills together and
# reports the first failure: of three equal answers one at least is reported.
REFUSALS = [
    answer(401, BODY, f'WWW-Authenticate: Bearer error="{TOKEN}"'),
    answer(500, BODY, f"X-Token: {TOKEN}"),
    answer(200, BODY),
    *[answer(403, BODY)] * 3,
    answer(200, json.dumps({"error": ECHO, "categories": []}).encode()),
    BODY + b"\r\n\r\n",
    answer(302, b"", f"Location: http://elsewhere.invalid/?token={QUOTED}"),
    answer(429, BODY, "Retry-After: 0"),
    answer(200, json.dumps({TOKEN: ECHO}).encode(), f"Content-Encoding: {QUOTED}"),
    *[answer(418, BODY)] * 3,
    reset,
    answer(401, BODY),
]
# Then a readable listing with unreadable rows.
ROWS = [
    skill(1),
    {"skill_id": f"id-{TOKEN}", "name": None},
    {"skill_id": "s2", "name": "N", "rating_count": TOKEN},
    {"skill_id": "s3", "name": "N", "updated_at": TOKEN},
    {"skill_id": "s4", "name": "N", "tags": {TOKEN: QUOTED}},
    {"name": ECHO},
    ECHO,
]
# Refused messages, one of which has the token just where a dead letter is cut (4 KiB).
MESSAGES: list[str | bytes] = [
    ECHO,
    b"binary: " + BODY,
    json.dumps({"type": TOKEN, "data": {"skill_id": TOKEN}}),
    json.dumps({"type": [TOKEN]}),
    update(skill_id=f"id-{TOKEN}", name=7),
    update(skill_id="s5", name="N", average_rating=TOKEN),
    update(skill_id="s6", name="N", updated_at=ECHO),
    json.dumps({"type": "category_update", "data": {"name": f"{TOKEN} room", "skill_count": ECHO}}),
    update(skill_id="s7", name="N", description="x" * 4020 + TOKEN + ECHO, rating_count="many"),
    update(skill_id="s8", name="N", code=ECHO * 300, rating_count="many"),
    json.dumps({"type": "rating_update", "data": {"skill_id": "s9", "rating": TOKEN, TOKEN: 1}}),
]


def unwelcome(status: int) -> Response:
    return Response(status, f"no {TOKEN}", Headers({"X-Token": TOKEN, "Content-Length": str(len(BODY))}), BODY)


async def test_token_is_never_seen_whatever_the_marketplace_does(
    program_environment: Environment,
) -> None:
    handshakes = 0

    def handshake(_: ServerConnection, __: Request) -> Response | None:
        nonlocal handshakes
        handshakes += 1
        return {1: unwelcome(401), 2: unwelcome(500), 3: unwelcome(302)}.get(handshakes)

    async def stream(connection: ServerConnection) -> None:
        if handshakes == 4:
            for message in MESSAGES:
                await connection.send(message)
        await connection.close({4: 1011, 5: 4401, 6: 1008}.get(handshakes, 1000), ECHO[:120])

    async def listing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = http.asked[-1].target.partition("?")[0]
        if path.endswith("/categories"):
            body: Any = {"categories": [{"name": "automation"}, {"name": "", "description": ECHO}, [ECHO]]}
        elif path.endswith("/skills"):
            body = {"skills": ROWS, "page": 1, "total": len(ROWS), "total_pages": 1}
        else:  # a single skill: not the requested one
            body = {"skill_id": TOKEN, "name": "N"}
        writer.write(answer(200, json.dumps(body).encode()))
        await writer.drain()

    async with ScriptedHttp(*REFUSALS, listing) as http, AsyncExitStack() as ends, AsyncExitStack() as peers:
        ws_url = await peers.enter_async_context(ws_peer(stream, process_request=handshake))
        settings = {
            "ATOM_SAAS_API_URL": http.url, "ATOM_SAAS_WS_URL": ws_url, "ATOM_SAAS_API_TOKEN": TOKEN,
            "ATOM_SAAS_WS_FALLBACK_SECONDS": 0.3, "ATOM_SAAS_WS_RECONNECT_DELAYS": "0.05",
            "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": 1000, "ATOM_SAAS_SYNC_INTERVAL_MINUTES": 0.01,
            "ATOM_SAAS_API_REQUESTS_PER_MINUTE": 0, "LOG_LEVEL": "DEBUG", "DJANGO_DEBUG": "true",
        }  # fmt: skip
        database = Database()
        ends.push_async_callback(database.close)
        watched = Mirror(None, SyncConfig(api_token=Secret(TOKEN)), database)  # type: ignore[arg-type]
        with programs(program_environment(**settings)) as start:
            daemon = start.start("runsync")
            await until(lambda: handshakes > 6 or not daemon.running, "every handshake and close was met")
            await peers.aclose()
            await until(lambda: watched.ask(reason_contains, "refused"), "the stream is unreachable")
            await until(lambda: watched.ask(passed), "the listing was read after all the refusals")
            checked = await start.run("verifysync", "--json")
            foreseen = await start.run("runsync", "--dry-run")
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0

            # All of it happened, and was reported.
            assert (checked.status, foreseen.status) == (1, 0)  # refused rows: not in sync
            assert len(json.loads(checked.out)["refused"]) >= len(ROWS) - 1
            sources = await watched.ask(lambda: list(DeadLetter.objects.values_list("source", flat=True)))
            assert sources.count("stream") == len(MESSAGES)
            assert sources.count("listing") == len(ROWS) - 1 + 2
            # Full syncs and single fetches get the answers in turns.
            expected = ("refuses the token (HTTP 401)", "HTTP 403", "HTTP 418", "redirect", "4401", "1008", "code 1011")
            assert [words for words in expected if words not in daemon.err] == []
            assert " debug " in daemon.err and daemon.err.count("***") > 20

            for program in start.started:
                assert sightings(program.out + program.err) == [], program.name
            assert await watched.ask(sightings_in_the_database) == []
            await watched.ask(plant_the_token)
            assert len(await watched.ask(sightings_in_the_database)) >= 2


def reason_contains(word: str) -> bool:
    return word in WebSocketState.objects.get().disconnect_reason


def passed() -> bool:
    return SyncRun.objects.filter(state="degraded").exists()


def plant_the_token() -> None:
    """Store the token as text and as bytes, so that the search has something to find."""
    now = timezone.now()
    DeadLetter.objects.create(
        source="stream", code="not_json", reason=f"has {TOKEN}", head=QUOTED.encode(), size=1, digest="0",
        first_seen_at=now, last_seen_at=now,
    )  # fmt: skip
