"""The token from a file: when the file is read, what a broken file does, and that no token, old or new, is logged."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atomproject.env import Environment
from marketplace_sync.conf import ConfigError, Secret, SyncConfig, find_problems, load_config
from marketplace_sync.logs import redact
from marketplace_sync.setting import InvalidValueError
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp, answer
from marketplace_sync.upstream.access import Access, access_problems
from marketplace_sync.upstream.errors import TokenRefusedError
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.token import KEPT_SECRET, Token, file_source, read_token

OLD, NEW = "old-token-4711-aaaa", "new-token-0815-bbbb"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(f"{OLD}\n")
    return written


def token_of(file: Path, clock: Callable[[], float] = Clock()) -> Token:  # noqa: B008 - never moved
    source = file_source(str(file))
    return Token(read_token(source), source, clock=clock)


def test_a_file_is_read_at_most_once_per_second(file: Path) -> None:
    clock = Clock()
    token = token_of(file, clock)
    file.write_text(NEW)
    clock.now += 0.9
    assert token.now().reveal() == OLD
    clock.now += 0.1
    assert token.now().reveal() == NEW
    file.write_text(OLD)
    assert token.now().reveal() == NEW
    assert token.look().reveal() == OLD


@pytest.mark.parametrize("content", [f"{NEW}\n", f"  {NEW}\r\n\n", f"\ufeff{NEW}", NEW])
def test_white_space_around_the_token_is_removed(file: Path, content: str) -> None:
    token = token_of(file)
    file.write_text(content)
    assert token.look() == Secret(NEW)


def test_a_link_that_is_moved_to_another_folder_is_followed(tmp_path: Path) -> None:
    for name, content in (("first", OLD), ("second", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(content)
    (tmp_path / "data").symlink_to("first")
    (tmp_path / "token").symlink_to("data/token")
    token = token_of(tmp_path / "token")
    (tmp_path / "next").symlink_to("second")
    (tmp_path / "next").replace(tmp_path / "data")
    assert token.look().reveal() == NEW


def broken(file: Path) -> dict[str, Callable[[], Any]]:
    """Return ways to break a token's file, by the reason for it."""

    def again_as(make: Callable[[], Any]) -> Callable[[], Any]:
        def broken() -> None:
            file.unlink()
            make()

        return broken

    return {
        "is empty.": lambda: file.write_text("\n"),
        "can't be read: No such file or directory.": file.unlink,
        "can't be read: it is no regular file.": again_as(lambda: os.mkfifo(file)),
        "can't be read: it has more than 65536 bytes.": lambda: file.write_text("x" * 65_537),
        "can't be read: it is not UTF-8.": lambda: file.write_bytes(b"\xff\xfe"),
        "contains white space, control or non-ASCII characters, which no HTTP header can carry.": lambda: (
            file.write_text(f"{NEW} and a comment")
        ),
    }


@pytest.mark.parametrize("way", range(6))
def test_a_broken_file_keeps_the_token_in_use_with_one_warning(
    file: Path, way: int, caplog: pytest.LogCaptureFixture
) -> None:
    token = token_of(file)
    reason, make_it_so = list(broken(file).items())[way]
    make_it_so()
    for _ in range(3):
        assert token.look().reveal() == OLD
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert reason in caplog.text
    with pytest.raises(InvalidValueError):
        read_token(file_source(str(file)))
    file.unlink(missing_ok=True)
    file.write_text(NEW)
    assert token.look().reveal() == NEW
    file.write_text("")
    token.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert OLD not in caplog.text and NEW not in caplog.text


def test_every_token_is_kept_secret_and_the_oldest_are_forgotten(file: Path) -> None:
    token = token_of(file)
    names = [f"number-{number:02}-of-many-tokens" for number in range(KEPT_SECRET + 3)]
    for name in names:
        file.write_text(name)
        token.look()
    file.write_text(names[-2])  # back to one that was replaced
    token.look()
    shown = [name for name in (OLD, *names) if redact(f"<{name}>") != "<***>"]
    assert shown == [OLD, names[0], names[1]]


def test_a_token_of_an_invalid_form_is_secret_too(file: Path) -> None:
    file.write_text(f"{NEW} {NEW}")
    with pytest.raises(InvalidValueError):
        read_token(file_source(str(file)))
    assert NEW not in redact(f"{NEW} {NEW}")


# Settings.


def test_token_and_file_together_are_an_error(file: Path) -> None:
    given = {"ATOM_SAAS_API_URL": "https://m.example", "ATOM_SAAS_API_TOKEN_FILE": str(file)}
    assert find_problems(SimpleNamespace(**given)) == ()
    (problem,) = find_problems(SimpleNamespace(**given, ATOM_SAAS_API_TOKEN=OLD))
    assert (problem.id, problem.level) == ("marketplace_sync.E050", "error")
    config = load_config(SimpleNamespace(**given), need_marketplace=True)
    assert Access(config).token.now().reveal() == OLD


def test_a_missing_file_is_an_error_if_a_marketplace_is_needed_and_else_a_warning() -> None:
    config = SyncConfig(api_token_file="/no/such/file")
    with pytest.raises(ConfigError) as caught:
        Access(config)
    expected = "ATOM_SAAS_API_TOKEN_FILE can't be read: No such file or directory."
    assert str(caught.value).startswith(expected)
    (problem,) = access_problems(config, token="warning")
    assert (problem.id, problem.message) == ("marketplace_sync.W050", expected)


def test_a_token_in_the_environment_can_not_change_and_one_in_a_file_can(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"T='{OLD}'\n")
    assert Environment({"T": OLD}, dotenv).rereader("T") is None
    assert Environment({}, None).rereader("T") is None
    again = Environment({}, dotenv).rereader("T")
    assert again is not None
    token = Token(Secret(OLD), again)
    dotenv.write_text(f'A=1\nexport T="{NEW}"\n')
    assert token.look().reveal() == NEW
    dotenv.unlink()
    assert token.look().reveal() == NEW
    dotenv.write_bytes(b"T=\xff")
    assert token.look().reveal() == NEW


# Requests.


def write(file: Path, token: str) -> None:
    file.write_text(token)


def token_in(request: Any) -> str:
    return str(request.headers["authorization"])


async def test_each_request_has_the_current_token(file: Path) -> None:
    async with ScriptedHttp(answer(200, b'{"status": "healthy"}')) as server:
        access = Access(SyncConfig(api_url=server.url, api_token_file=str(file)))
        async with MarketClient(SyncConfig(api_url=server.url), access) as market:
            await market.health()
            write(file, NEW)
            access.token.look()
            await market.health()
        assert [token_in(request) for request in server.asked] == [f"Bearer {OLD}", f"Bearer {NEW}"]


async def test_a_request_is_repeated_if_its_token_was_replaced_while_it_was_refused(file: Path) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write(file, NEW)
        writer.write(answer(401))
        await writer.drain()

    async with ScriptedHttp(refuse, answer(200, b'{"status": "healthy"}'), answer(401)) as server:
        config = SyncConfig(api_url=server.url, api_token_file=str(file))
        async with MarketClient(config) as market:
            assert await market.health() == {"status": "healthy"}
            with pytest.raises(TokenRefusedError):
                await market.health()
        assert [token_in(request) for request in server.asked] == [
            f"Bearer {OLD}",
            f"Bearer {NEW}",
            f"Bearer {NEW}",
        ]
