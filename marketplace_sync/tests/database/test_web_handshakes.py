"""Every request head gets an answer and an end: too long, too many lines, or never finished."""

import socket
from collections.abc import Iterator

import pytest

from marketplace_sync.tests.support.browser import web_server

pytestmark = pytest.mark.django_db(transaction=True)

UPGRADE = (
    "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    with web_server(monkeypatch) as url:
        yield "127.0.0.1", int(url.rpartition(":")[2])


def answer(server: tuple[str, int], sent: str) -> str:
    """All that comes until the server closes the connection."""
    with socket.create_connection(server, timeout=10) as connection:
        connection.sendall(sent.encode())
        with connection.makefile("rb") as file:
            return file.read().decode()


@pytest.mark.parametrize("length", [8_200, 20_000, 60_000])
def test_too_long_websocket_url_is_answered_and_closed(server: tuple[str, int], length: int) -> None:
    text = answer(server, f"GET /ws/changes/?after={'1' * length} HTTP/1.1\r\n{UPGRADE}\r\n")
    assert text.startswith("HTTP/1.1 414 ")


@pytest.mark.parametrize("headers", [f"X-Long: {'x' * 9_000}\r\n", "X-Many: 1\r\n" * 200])
def test_too_many_or_too_long_headers_of_a_handshake_are_answered(server: tuple[str, int], headers: str) -> None:
    assert answer(server, f"GET /ws/changes/ HTTP/1.1\r\n{UPGRADE}{headers}\r\n").startswith("HTTP/1.1 431 ")


def test_malformed_handshake_is_answered(server: tuple[str, int]) -> None:
    text = answer(server, "GET /ws/changes/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert text.startswith("HTTP/1.1 4")


def test_unfinished_request_head_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomproject.uvicorn_fixes.HEAD_SECONDS", 0.2)
    with web_server(monkeypatch) as url:
        server = "127.0.0.1", int(url.rpartition(":")[2])
        assert answer(server, "") == ""
        assert answer(server, f"GET /ws/changes/ HTTP/1.1\r\n{UPGRADE}").startswith("HTTP/1.1 408 ")
        with socket.create_connection(server, timeout=10) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: local")
            with connection.makefile("rb") as file:
                assert b"HTTP/1.1 408 " in file.read()


def test_trickled_bytes_do_not_extend_the_time_of_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomproject.uvicorn_fixes.HEAD_SECONDS", 0.3)
    with web_server(monkeypatch) as url:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            connection.settimeout(0.05)
            received = b""
            for number in range(1000):
                try:
                    connection.sendall(f"X-{number}: 1\r\n".encode())
                    received = connection.recv(100)
                    break
                except TimeoutError:
                    continue
            assert received.startswith(b"HTTP/1.1 408 ")
