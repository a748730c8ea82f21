"""Logs: one event a line, and the token in none (law 14)."""

import asyncio
import io
import json
import logging
import logging.handlers
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import httpx2
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from marketplace_sync.logs import (
    MASK,
    FloodFilter,
    RefusedRequestFilter,
    Secret,
    line_formatter,
    logging_config,
    protect,
    redact,
)
from marketplace_sync.redaction import redact_value

TOKEN = 'eyJhbGciOi bGRTUxMiJ9/ci+"\\é%OiJIUzUxMi='
FORMS = [TOKEN, quote(TOKEN), quote(TOKEN, safe=""), quote(TOKEN, safe="").lower(), quote_plus(TOKEN),
         json.dumps(TOKEN), repr(TOKEN), repr(TOKEN.encode()), json.dumps({"t": [TOKEN]}), repr([TOKEN])]  # fmt: skip
# What of it no mask may leave over: any five characters, which no random key of a handshake has by chance.
PARTS = [part[at : at + 5] for part in ("eyJhbGciOi", "bGRTUxMiJ9", "OiJIUzUxMi") for at in range(6)]


@pytest.fixture(autouse=True)
def _protected() -> None:
    protect(TOKEN)


class Shown:
    """A logger at DEBUG with handlers of each sort, as some library might add, and what they have written."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)
        self.streams: list[io.StringIO] = []
        plain = logging.Formatter("%(asctime)s %(name)s %(message)s")
        for formatter in (line_formatter(as_json=False), line_formatter(as_json=True), plain, None):
            handler = logging.StreamHandler(io.StringIO())
            handler.setFormatter(formatter)
            self.streams.append(handler.stream)
            self.logger.addHandler(handler)
        self.memory = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        self.logger.addHandler(self.memory)
        self.logger.setLevel(logging.DEBUG)

    @property
    def console(self) -> str:
        return self.streams[0].getvalue()

    @property
    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams[1].getvalue().splitlines()]

    @property
    def everything(self) -> str:
        return "\n".join(
            [*(stream.getvalue() for stream in self.streams), *(repr(record.__dict__) for record in self.memory.buffer)]
        )

    def close(self) -> None:
        for handler in self.logger.handlers[:]:
            self.logger.removeHandler(handler)
            handler.close()
        self.logger.setLevel(logging.NOTSET)


@pytest.fixture
def shown() -> Iterator[Callable[[str], Shown]]:
    opened: list[Shown] = []

    def show(name: str) -> Shown:
        opened.append(Shown(name))
        return opened[-1]

    yield show
    for one in opened:
        one.close()


def assert_hidden(text: str) -> None:
    assert MASK in text
    for part in PARTS:
        assert part not in text


class Holder:
    """An object that shows the token when printed."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __repr__(self) -> str:
        return TOKEN if self.way == "repr" else "holder"

    def __str__(self) -> str:
        return TOKEN if self.way == "str" else "holder"


@pytest.mark.parametrize("form", FORMS)
def test_every_way_of_writing_the_token_is_masked(form: str) -> None:
    assert_hidden(redact(f"before {form} after"))
    assert redact(f"before {form} after").startswith("before ")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET /ws?token=abc123&x=1 HTTP/1.1", "GET /ws?token=***&x=1 HTTP/1.1"),
        ("wss://h/ws?a=1&TOKEN=abc", "wss://h/ws?a=1&TOKEN=***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("(b'authorization', b'bearer abcdefgh')", "(b'authorization', b'bearer ***')"),
        ("the bearer of news", "the bearer of news"),
        ("token=5 tokens", "token=5 tokens"),
    ],
)
def test_text_that_looks_like_a_key_is_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


@pytest.mark.parametrize("short", ["", "a", "abc"])
def test_a_secret_too_short_to_be_one_leaves_logs_readable(short: str) -> None:
    protect(short)
    assert redact("an abc of logs") == "an abc of logs"


def test_secret_within_another_leaves_no_part() -> None:
    protect("inner-secret")
    protect(Secret("outer-inner-secret-outer"))
    assert redact("x outer-inner-secret-outer y inner-secret") == "x *** y ***"


@given(st.text(min_size=4, max_size=30), st.text(max_size=10), st.text(max_size=10))
def test_no_text_shows_a_protected_secret(secret: str, before: str, after: str) -> None:
    protect(secret)
    for form in (secret, quote(secret, safe="", errors="replace")):
        assert secret not in redact(f"{before}{form}{after}") or "*" in secret


@given(st.text(st.characters(codec=None, categories=None), min_size=4, max_size=10))
def test_any_text_at_all_can_be_protected(secret: str) -> None:
    protect(secret)
    assert secret not in redact(f"({secret})")


def test_structure_without_a_secret_stays_the_same_object() -> None:
    value = [{"a": (1, 2.5, None, object)}, b"bytes"]
    assert redact_value(value) == value
    assert redact_value({"k": [TOKEN, (f"x{TOKEN}",)], TOKEN: 1}) == {"k": [MASK, (f"x{MASK}",)], MASK: 1}


CALLS: dict[str, Callable[[logging.Logger], None]] = {
    "message": lambda log: log.debug("see " + TOKEN),
    "argument": lambda log: log.debug("see %s", TOKEN),
    "quoted argument": lambda log: log.debug("> GET %s", "/ws?x=" + quote(TOKEN, safe="")),
    "bytes": lambda log: log.debug("%r", TOKEN.encode()),
    "named argument": lambda log: log.debug("%(a)s", {"a": TOKEN}),
    "nested": lambda log: log.debug("%s", {"h": [("auth", f"Bearer {TOKEN}")]}),
    "by str": lambda log: log.debug("%s", Holder("str")),
    "by repr": lambda log: log.debug("%r", Holder("repr")),
    "in a list": lambda log: log.debug("%s", [Holder("repr")]),
    "as the message": lambda log: log.debug(Holder("str")),
    "put together": lambda log: log.debug("%s%s", TOKEN[:9], TOKEN[9:]),
    "wrong format": lambda log: log.debug("%d", TOKEN),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_handler_of_any_library_shows_a_secret(
    call: Callable[[logging.Logger], None], shown: Callable[[str], Shown], capsys: pytest.CaptureFixture[str]
) -> None:
    some = shown("some.library")
    call(some.logger)
    assert_hidden(some.everything)
    assert "Logging error" not in capsys.readouterr().err


def test_mismatched_arguments_are_logged_without_a_traceback(shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    some.logger.info("%d of %d", "three")
    assert some.console.splitlines()[0].endswith("some.library: %d of %d ('three',)")


def failing(how: str) -> None:
    try:
        raise ValueError(f"can't open wss://h/ws?token={quote(TOKEN)}: {TOKEN}")
    except ValueError as fault:
        if how == "chained":
            raise RuntimeError("gave up") from fault
        if how == "noted":
            fault.add_note(f"with {TOKEN}")
        if how == "group":
            raise ExceptionGroup("several", [fault]) from None
        raise


@pytest.mark.parametrize("how", ["plain", "chained", "noted", "group"])
def test_no_traceback_shows_a_secret(how: str, shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    try:
        failing(how)
    except Exception as fault:
        some.logger.exception("failed: %s", fault)
        structlog.get_logger("some.library").exception("failed", why=fault, text=str(fault))
    assert_hidden(some.everything)
    assert some.console.count("ValueError: can't open wss://h/ws?token=***") >= 2


def test_a_traceback_without_a_secret_is_left_to_the_handlers(shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    try:
        raise KeyError("harmless")
    except KeyError:
        some.logger.exception("failed")
    assert some.memory.buffer[0].exc_info[0] is KeyError
    assert some.everything.count("KeyError: 'harmless'") >= 4


def test_unprintable_object_does_not_fail_the_log_call(shown: Callable[[str], Shown]) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError(TOKEN)

    some = shown("some.library")
    some.logger.info("see %s", Unprintable())
    assert "unprintable log message (RuntimeError)" in some.console
    assert_hidden(some.everything + MASK)


def test_arguments_stay_separate_for_formatters_that_read_them(shown: Callable[[str], Shown]) -> None:
    some = shown("uvicorn.access.like")
    some.logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", f"/ws?token={quote(TOKEN)}", "1.1", 200)
    assert some.memory.buffer[0].args == ("127.0.0.1:1", "GET", "/ws?token=***", "1.1", 200)


async def test_websockets_at_debug_does_not_show_a_secret(
    shown: Callable[[str], Shown],
) -> None:
    libraries = [shown("websockets.client"), shown("websockets.server")]

    async def echo(connection: ServerConnection) -> None:
        await connection.send(f"your token is {TOKEN}")
        await connection.wait_closed()

    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}/ws?token={quote(TOKEN, safe='')}"
        headers = {"Authorization": f"Bearer {quote(TOKEN)}"}
        async with connect(url, additional_headers=headers, proxy=None) as connection:
            await connection.recv()
    for library in libraries:
        assert "GET /ws?token=***" in library.console
        assert_hidden(library.everything)


async def test_httpx2_and_httpcore2_at_debug_do_not_show_a_secret(shown: Callable[[str], Shown]) -> None:
    libraries = [shown("httpx2"), shown("httpcore2.http11"), shown("httpcore2.connection")]

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        quoted = quote(TOKEN, safe="").encode()
        writer.write(b"HTTP/1.1 401 No\r\nX-Token: " + quoted + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, httpx2.AsyncClient(trust_env=False) as client:
        port = server.sockets[0].getsockname()[1]
        token = quote(TOKEN, safe="")
        url = f"http://127.0.0.1:{port}/x?token={token}&again={token}"
        await client.get(url, headers={"Authorization": f"Bearer {token}"})
    assert "?token=***&again=***" in libraries[0].console
    assert "X-Token" in libraries[1].console
    for library in libraries[:2]:
        assert_hidden(library.everything)


def test_an_event_is_one_line_for_people(shown: Callable[[str], Shown]) -> None:
    some = shown("marketplace_sync.some.room")
    structlog.get_logger("marketplace_sync.some.room").info(
        "stream_open", url="wss://h/ws", after=1.23456, why="two words", none=None, name='a "b"\n\x1b[31mred\u202e'
    )
    (line,) = some.console.splitlines()
    assert line.partition("Z ")[2] == (
        'info     some.room: stream_open url=wss://h/ws after=1.235 why="two words" none=None '
        "name=\"a 'b'\\n\\x1b[31mred\\u202e\""
    )


def test_outside_text_cannot_forge_an_event(shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    some.logger.warning("bad name: %s", "x\n2026-01-01 00:00:00.000Z info all is well")
    assert len(some.console.splitlines()) == 1
    try:
        raise ValueError("x\n2026-01-01 00:00:00.000Z info all is well\x1b[2J")
    except ValueError:
        some.logger.exception("failed")
    assert sum(line.startswith("20") for line in some.console.splitlines()) == 2
    assert "\x1b" not in some.console


def test_an_event_is_one_json_object_for_machines(shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    structlog.get_logger("some.library").warning("shed", count=3, kept=("a", "b"), odd=threading.current_thread)
    some.logger.error("failed %s", "twice", exc_info=ValueError("why"))
    first, second = some.parsed
    assert (first["level"], first["logger"], first["event"]) == ("warning", "some.library", "shed")
    assert (first["count"], first["kept"]) == (3, ["a", "b"])
    assert first["time"].endswith("+00:00")
    assert second["event"] == "failed twice"
    assert second["exception"].endswith("ValueError: why")


def test_verbose_libraries_log_at_debug_only() -> None:
    assert logging_config()["loggers"]["websockets"]["level"] == "WARNING"
    assert logging_config(level="DEBUG")["loggers"]["websockets"]["level"] == "NOTSET"


@pytest.fixture
def counted(shown: Callable[[str], Shown]) -> Shown:
    """Return the lines in which the counts of floods are logged."""
    return shown("marketplace_sync.logs")


def test_flood_of_one_event_becomes_a_count_and_others_are_logged(
    shown: Callable[[str], Shown], counted: Shown
) -> None:
    some = shown("marketplace_sync.daemon.full_sync")
    flood = FloodFilter(3, 3600)
    some.logger.handlers[1].addFilter(flood)
    log = structlog.get_logger("marketplace_sync.daemon.full_sync")
    for number in range(500):
        log.warning("row_refused", key=number)
    log.info("sync_ended")
    assert [line["event"] for line in some.parsed] == ["row_refused"] * 3 + ["sync_ended"]
    flood.log_counts()
    (line,) = counted.parsed
    assert (line["event"], line["level"]) == ("suppressed", "warning")
    assert (line["source"], line["of"], line["count"]) == ("marketplace_sync.daemon.full_sync", "row_refused", 497)
    flood.log_counts()
    assert len(counted.parsed) == 1


async def test_count_is_logged_after_a_silence_and_resets_the_window(counted: Shown) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(FloodFilter(2, 0.2))
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        for number in range(10):
            logger.warning("caused by a client: %d", number)
        assert stream.getvalue().count("caused by a client") == 2
        async with asyncio.timeout(30):
            while not counted.parsed:
                await asyncio.sleep(0.01)
        assert (counted.parsed[0]["source"], counted.parsed[0]["count"]) == ("some.library", 8)
        logger.warning("caused by a client: again")
        assert stream.getvalue().count("caused by a client") == 3
    finally:
        logger.removeHandler(handler)


def test_only_client_errors_are_suppressed_among_errors_and_debug() -> None:
    flood = FloodFilter(1, 3600)

    def passed(name: str, level: int) -> int:
        records = [logging.LogRecord(name, level, "f", 1, "text", (), None) for _ in range(5)]
        return sum(map(flood.filter, records))

    assert passed("marketplace_sync.daemon.entry", logging.ERROR) == 5
    assert passed("websockets", logging.DEBUG) == 5
    assert passed("uvicorn.access", logging.INFO) == 5
    assert passed("django.request", logging.WARNING) == 1
    assert passed("django.security.DisallowedHost", logging.ERROR) == 1


def test_a_refused_request_has_no_traceback_and_an_error_of_ours_has_one() -> None:
    def passed(name: str, level: int) -> logging.LogRecord:
        why = (ValueError, ValueError("why"), None)
        record = logging.LogRecord(name, level, __file__, 1, "what: %s", ("x" * 9000,), why)
        assert RefusedRequestFilter().filter(record)
        return record

    refused = passed("django.security.SuspiciousFileOperation", logging.ERROR)
    assert (refused.levelname, refused.exc_info, len(refused.getMessage())) == ("WARNING", None, 300)
    assert passed("django.request", logging.WARNING).exc_info is None
    for name in ("django.request", "marketplace_sync.daemon"):
        error = passed(name, logging.ERROR)
        assert error.levelname == "ERROR" and error.exc_info
    assert passed("marketplace_sync.daemon", logging.WARNING).exc_info


def test_ids_of_a_task_are_in_all_lines_of_the_task(shown: Callable[[str], Shown]) -> None:
    some = shown("some.library")
    with structlog.contextvars.bound_contextvars(run=7):
        some.logger.warning("slow")
        structlog.get_logger("some.library").info("sync_began")
    some.logger.warning("later")
    assert [line.get("run") for line in some.parsed] == [7, 7, None]
