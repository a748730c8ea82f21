"""The settings module: what it makes of the environment, of `.env` and of nothing at all."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from atomproject.databases import POSTGRES_OPTIONS
from atomproject.env import ENVIRONMENT, Environment
from atomproject.secret_key import kept_key
from atomproject.settings_page import FILES
from marketplace_sync.conf import SETTINGS

FOLDER = Path(__file__).resolve().parents[3]
SECRET = "s3cr3t-of-a-person"


def environment(folder: Path, dotenv: str | bytes, **variables: str) -> Environment:
    file = folder / ".env"
    file.write_bytes(dotenv if isinstance(dotenv, bytes) else dotenv.encode())
    return Environment(variables, file)


def test_the_environment_comes_before_the_file_and_empty_is_a_value(tmp_path: Path) -> None:
    env = environment(tmp_path, "A=file\nB=file\nexport C=file\n", A="process", B="")
    assert [env.raw(name) for name in "ABCD"] == ["process", "", "file", ""]
    assert "C" not in os.environ


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("T=plain", "plain"),
        ("T='single quoted'", "single quoted"),
        ('T="double quoted"', "double quoted"),
        ("T=a=b#c", "a=b#c"),
        ("T=$HOME", "$HOME"),
        ("T=$T", "$T"),
        ("\ufeffT=with-a-mark", "with-a-mark"),
    ],
)
def test_values_of_the_file_are_taken_literally(tmp_path: Path, line: str, value: str) -> None:
    assert environment(tmp_path, line).raw("T") == value


@pytest.mark.parametrize(
    "line", [f"ATOM_SAAS_API_TOKEN = {SECRET}", SECRET, f"A B={SECRET}", f"=x{SECRET}", f"T={SECRET}\0"]
)
def test_a_line_that_is_no_setting_is_reported_without_its_text(
    tmp_path: Path, line: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    env = environment(tmp_path, f"# a comment\n\n{line}\nB=2")
    (problem,) = env.problems
    assert (problem.id, problem.level) == ("marketplace_sync.W039", "warning")
    assert "line 3" in problem.message
    assert env.raw("B") == "2"
    assert SECRET not in "".join([repr(problem), *capfd.readouterr(), caplog.text])


def test_a_file_that_is_no_text_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    assert [problem.id for problem in environment(tmp_path, b"A=\xff\xfe").problems] == ["marketplace_sync.E039"]
    assert [problem.id for problem in Environment({}, tmp_path).problems] == ["marketplace_sync.E039"]
    assert Environment({}, tmp_path / "none").problems == []


def database(url: str, folder: Path) -> tuple[dict[str, object], list[str]]:
    env = Environment({"DATABASE_URL": url}, None)
    return env.database(folder), [problem.id for problem in env.problems]


@pytest.mark.parametrize(
    ("url", "name"), [("", "db.sqlite3"), ("sqlite:///other.db", "other.db"), ("  sqlite:///a%20b.db ", "a b.db")]
)
def test_sqlite_is_a_file_in_the_project_folder_set_up_for_several_writers(tmp_path: Path, url: str, name: str) -> None:
    found, faults = database(url, tmp_path)
    assert faults == []
    assert found["NAME"] == str(tmp_path / name)
    assert found["OPTIONS"] == {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-6144;",
    }


def test_an_absolute_sqlite_path_stays_where_it_is(tmp_path: Path) -> None:
    assert database(f"sqlite:///{tmp_path}/x.db", Path("/nowhere"))[0]["NAME"] == f"{tmp_path}/x.db"


def test_postgresql_keeps_no_connection_for_a_thread_that_ends_and_answers_soon(tmp_path: Path) -> None:
    found, faults = database("postgres://me:p%40ss@db.example:5433/mirror?sslmode=require", tmp_path)
    assert faults == []
    assert found == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "mirror", "USER": "me", "PASSWORD": "p@ss", "HOST": "db.example", "PORT": 5433,
        "CONN_MAX_AGE": 0,
        "OPTIONS": {**POSTGRES_OPTIONS, "sslmode": "require"},
    }  # fmt: skip
    assert database("postgres:///mirror", tmp_path)[1] == []


@pytest.mark.parametrize(
    "url",
    [
        "nonsense", "mysql://x/y", "sqlite://db.sqlite3", "sqlite://", "sqlite://:memory:", "sqlite:///:memory:",
        "sqlite:////no/such/folder/x.db", "postgres://host", "postgres://host/", "postgres://host:port/x",
        "postgres://host:99999/x", "postgres://[::1/x", "postgres://", "://", "postgres://me:pa ss@host/x",
    ],
)  # fmt: skip
def test_a_database_that_can_not_be_is_an_error_and_refuses_every_query(tmp_path: Path, url: str) -> None:
    found, faults = database(url, tmp_path)
    assert faults == ["marketplace_sync.E031"]
    assert found["ENGINE"] == "django.db.backends.dummy"


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://x", "redis://", "redis://h:x/0", "redis://h/zero"])
def test_a_redis_url_that_can_not_be_is_an_error(url: str) -> None:
    env = Environment({"REDIS_URL": url}, None)
    assert env.channel_layers()["default"]["BACKEND"] == "channels.layers.InMemoryChannelLayer"
    assert [problem.id for problem in env.problems] == ["marketplace_sync.E032"]


def test_redis_carries_the_channel_layer_where_it_is_named() -> None:
    layer = Environment({"REDIS_URL": "redis://:pw@127.0.0.1:6379/1"}, None).channel_layers()["default"]
    assert layer == {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": ["redis://:pw@127.0.0.1:6379/1"]},
    }


def test_processes_that_start_together_agree_on_the_secret_key(tmp_path: Path) -> None:
    file = tmp_path / ".secret_key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: kept_key(file), range(64)))
    (key,) = keys
    assert len(key) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_an_empty_key_file_is_written_again(tmp_path: Path) -> None:
    (tmp_path / ".secret_key").write_text("\n")
    assert Environment({}, None).secret_key(tmp_path / ".secret_key") == (tmp_path / ".secret_key").read_text().strip()


def test_a_folder_without_write_access_is_reported(tmp_path: Path) -> None:
    env = Environment({}, None)
    assert len(env.secret_key(tmp_path / "no" / "such" / ".secret_key")) >= 50
    assert [problem.id for problem in env.problems] == ["marketplace_sync.W033"]
    assert Environment({"DJANGO_SECRET_KEY": "mine"}, None).secret_key(tmp_path / "no" / "key") == "mine"


def test_the_example_names_every_setting_with_its_default_and_one_line_of_help() -> None:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    shown = {
        line.partition("=")[0]: (line.partition("=")[2], lines[number - 1].removeprefix("# "))
        for number, line in enumerate(lines)
        if line and not line.startswith("#")
    }
    assert shown == {setting.name: (setting.default, setting.help) for setting in (*SETTINGS, *ENVIRONMENT)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_written_of_the_settings_is_what_they_are(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path](), "run: python -m atomproject.settings_page"


def test_the_reference_has_every_setting_with_its_bounds() -> None:
    page = (FOLDER / "docs" / "settings.md").read_text(encoding="utf-8")
    for setting in (*SETTINGS, *ENVIRONMENT):
        assert page.count(f"| `{setting.name}` |") == 1
    assert "| `ATOM_SAAS_WS_PONG_TIMEOUT` | `10` | A peer that has not answered a ping after this time" in page
    assert "| 0.01 to 86,400 seconds | 2 to 60 seconds | 9 |" in page


async def test_static_files_come_whole_under_asgi_without_debug_or_a_collecting_step() -> None:
    from atomproject.asgi import application

    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/static/admin/css/base.css")
        head = await client.head("/static/admin/css/base.css")
        part = await client.get("/static/admin/css/base.css", headers={"Range": "bytes=0-9", "Accept-Encoding": ""})
        missing = await client.get("/static/admin/css/none.css")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/css")
    assert len(answer.content) == int(head.headers["content-length"]) > 1000
    assert (part.status_code, part.content) == (206, answer.content[:10])
    assert missing.status_code == 404
