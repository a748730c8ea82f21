"""Settings as they are written, and what becomes of them."""

from dataclasses import fields
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.conf import (
    BY_NAME,
    SETTINGS,
    ConfigError,
    Secret,
    SyncConfig,
    find_problems,
    load_config,
)
from marketplace_sync.conf_rules import ws_url_of
from marketplace_sync.setting import Kind

TOKEN = "0e7c1a52-tok-9f"
GOOD = {"ATOM_SAAS_API_URL": "https://market.example", "ATOM_SAAS_API_TOKEN": TOKEN}


def load(**values: Any) -> SyncConfig:
    return load_config(SimpleNamespace(**{**GOOD, **values}), need_marketplace=True)


def ids(**values: Any) -> list[str]:
    return [
        fault.id.removeprefix("marketplace_sync.") for fault in find_problems(SimpleNamespace(**{**GOOD, **values}))
    ]


def test_nothing_configured_is_the_defaults() -> None:
    assert load_config(SimpleNamespace()) == SyncConfig()


def test_the_table_and_the_object_have_the_same_settings_and_defaults() -> None:
    assert {setting.field for setting in SETTINGS} == {field.name for field in fields(SyncConfig)}
    empty = load_config(SimpleNamespace(**{setting.name: "" for setting in SETTINGS if not setting.empty_counts}))
    assert empty == SyncConfig()
    assert [type(getattr(empty, field.name)) for field in fields(SyncConfig)] == [
        type(getattr(SyncConfig(), field.name)) for field in fields(SyncConfig)
    ]


def test_numbers_and_names_are_each_used_once() -> None:
    assert len({setting.number for setting in SETTINGS}) == len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_within_its_own_bounds_and_recommended(setting: Any) -> None:
    assert not [fault for fault in find_problems(SimpleNamespace(**GOOD)) if fault.setting == setting.name]


@pytest.mark.parametrize(
    ("name", "raw", "field", "value"),
    [
        ("ATOM_SAAS_ENABLED", "No", "enabled", False),
        ("ATOM_SAAS_ENABLED", False, "enabled", False),
        ("ATOM_SAAS_SYNC_INTERVAL_MINUTES", "0.05", "sync_interval_seconds", 3.0),
        ("ATOM_SAAS_SYNC_INTERVAL_MINUTES", 2, "sync_interval_seconds", 120.0),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", " 1, 2.5,.5 ", "reconnect_delays", (1.0, 2.5, 0.5)),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", [3, 4.5], "reconnect_delays", (3.0, 4.5)),
        ("ATOM_SAAS_WS_RATE_LIMIT", "0", "rate_limit", 0.0),
        ("ATOM_SAAS_API_REQUESTS_PER_MINUTE", "0", "requests_per_minute", 0),
        ("ATOM_SAAS_WS_FALLBACK_SECONDS", "2e0", "fallback_seconds", 2.0),
        ("ATOM_SAAS_PAGE_SIZE", " 7 ", "page_size", 7),
        ("ATOM_SAAS_API_URL", "https://market.example/base/", "api_url", "https://market.example/base"),
        ("ATOM_SAAS_API_TOKEN", Secret("as-a-secret"), "api_token", Secret("as-a-secret")),
    ],
)  # fmt: skip
def test_text_and_python_values_become_typed(name: str, raw: object, field: str, value: object) -> None:
    found = getattr(load(**{name: raw}), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("ATOM_SAAS_ENABLED", "maybe"),
        ("ATOM_SAAS_ENABLED", 1),
        ("ATOM_SAAS_PAGE_SIZE", "1001"),
        ("ATOM_SAAS_PAGE_SIZE", "0"),
        ("ATOM_SAAS_PAGE_SIZE", "1.5"),
        ("ATOM_SAAS_PAGE_SIZE", "1_0"),
        ("ATOM_SAAS_PAGE_SIZE", "٣"),
        ("ATOM_SAAS_PAGE_SIZE", True),
        ("ATOM_SAAS_PAGE_SIZE", "9" * 5000),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "nan"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "inf"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "1e999"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", float("nan")),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", float("inf")),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", 10**400),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "0"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "-1"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", "5s"),
        ("ATOM_SAAS_WS_PONG_TIMEOUT", Decimal("5")),
        ("ATOM_SAAS_WS_RATE_LIMIT", "0.5"),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", "1,,2"),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", "1,inf"),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", "-1"),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", []),
        ("ATOM_SAAS_WS_RECONNECT_DELAYS", ",".join(["1"] * 101)),
        ("ATOM_SAAS_API_URL", "market.example"),
        ("ATOM_SAAS_API_URL", "ftp://market.example"),
        ("ATOM_SAAS_API_URL", "https://"),
        ("ATOM_SAAS_API_URL", "https://:443"),
        ("ATOM_SAAS_API_URL", "https://market.example:99999"),
        ("ATOM_SAAS_API_URL", "https://market.example:0"),
        ("ATOM_SAAS_API_URL", "https://market.example:x"),
        ("ATOM_SAAS_API_URL", "https://[::1"),
        ("ATOM_SAAS_API_URL", "https://mar ket.example"),
        ("ATOM_SAAS_API_URL", "https://market.example/\x00"),
        ("ATOM_SAAS_API_URL", "https://user:pass@market.example"),
        ("ATOM_SAAS_API_URL", "https://market.example/?token=x"),
        ("ATOM_SAAS_API_URL", "https://market.example/?"),
        ("ATOM_SAAS_API_URL", "https://market.example/#x"),
        ("ATOM_SAAS_API_URL", b"https://market.example"),
        ("ATOM_SAAS_WS_URL", "https://market.example/ws"),
        ("ATOM_SAAS_API_TOKEN", "with space"),
        ("ATOM_SAAS_API_TOKEN", "line-end\n"),
        ("ATOM_SAAS_API_TOKEN", "t\u00f6ken-of-mine"),
        ("ATOM_SAAS_API_TOKEN", " "),
        ("ATOM_SAAS_API_TOKEN", 5),
    ],
)
def test_what_can_not_work_is_one_error_of_that_setting(name: str, raw: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: raw})
    (fault,) = caught.value.problems
    assert fault.setting == name
    assert fault.id == f"marketplace_sync.E{BY_NAME[name].number:03d}"
    assert fault.message.startswith(name)
    assert fault.hint
    assert len(str(fault)) < 400


def test_all_errors_are_reported_in_the_order_of_the_table() -> None:
    with pytest.raises(ConfigError) as caught:
        load(ATOM_SAAS_PAGE_SIZE="x", ATOM_SAAS_WS_URL="nowhere", FEED_KEEP_ROWS="-1")
    assert [fault.setting for fault in caught.value.problems] == [
        "ATOM_SAAS_WS_URL", "ATOM_SAAS_PAGE_SIZE", "FEED_KEEP_ROWS",
    ]  # fmt: skip
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_url_or_token_is_an_error_only_where_a_marketplace_is_needed() -> None:
    assert {(fault.id, fault.level) for fault in find_problems(SimpleNamespace())} == {
        ("marketplace_sync.W001", "warning"),
        ("marketplace_sync.W003", "warning"),
    }
    with pytest.raises(ConfigError) as caught:
        load_config(SimpleNamespace(), need_marketplace=True)
    assert [fault.id for fault in caught.value.problems] == ["marketplace_sync.E001", "marketplace_sync.E003"]


def test_switched_off_it_needs_neither_url_nor_token() -> None:
    assert load_config(SimpleNamespace(ATOM_SAAS_ENABLED="false"), need_marketplace=True).enabled is False
    assert find_problems(SimpleNamespace(ATOM_SAAS_ENABLED="false")) == ()


@pytest.mark.parametrize(
    ("api", "stream"),
    [
        ("https://market.example", "wss://market.example/ws"),
        ("https://market.example:8443/api/base", "wss://market.example:8443/ws"),
        ("http://127.0.0.1:5058", "ws://127.0.0.1:5058/ws"),
        ("http://[::1]:5058/x", "ws://[::1]:5058/ws"),
        ("", ""),
    ],
)
def test_the_stream_is_beside_the_api_where_unset(api: str, stream: str) -> None:
    assert ws_url_of(api) == stream
    assert load_config(SimpleNamespace(ATOM_SAAS_API_URL=api)).ws_url == stream


def test_a_stream_url_of_its_own_is_kept() -> None:
    assert load(ATOM_SAAS_WS_URL="wss://market.example/live").ws_url == "wss://market.example/live"


@pytest.mark.parametrize(
    ("values", "id"),
    [
        ({"ATOM_SAAS_API_URL": "http://market.example"}, "W001"),
        ({"ATOM_SAAS_WS_URL": "ws://market.example/ws"}, "W002"),
        ({"ATOM_SAAS_API_TOKEN": "short"}, "W003"),
        ({"ATOM_SAAS_WS_HEARTBEAT_INTERVAL": "3"}, "W008"),
        ({"ATOM_SAAS_WS_RECONNECT_DELAYS": "0.1,1"}, "W010"),
        ({"ATOM_SAAS_SYNC_INTERVAL_MINUTES": "0.5"}, "W017"),
        ({"ATOM_SAAS_API_REQUESTS_PER_MINUTE": "101"}, "W019"),
        ({"ATOM_SAAS_WS_PONG_TIMEOUT": "30"}, "W041"),
        ({"ATOM_SAAS_WS_URL": "wss://elsewhere.example/ws"}, "W042"),
        ({"ATOM_SAAS_WS_FALLBACK_AFTER_FAILURES": "5", "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": "4"}, "W043"),
        ({"ATOM_SAAS_QUEUE_MAX_BYTES": "1048576", "ATOM_SAAS_WS_MAX_MESSAGE_BYTES": "1048577"}, "E044"),
    ],
)
def test_an_unwise_value_is_reported(values: dict[str, str], id: str) -> None:
    assert id in ids(**values)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "market.localhost"])
def test_clear_text_within_the_machine_is_fine(host: str) -> None:
    assert ids(ATOM_SAAS_API_URL=f"http://{host}:5058") == []


@pytest.mark.parametrize("name", ["ATOM_SAAS_WS_RATE_LIMIT", "ATOM_SAAS_API_REQUESTS_PER_MINUTE"])
def test_no_limit_is_no_fault(name: str) -> None:
    assert ids(**{name: "0"}) == []


@pytest.mark.parametrize(
    "values",
    [
        {"ATOM_SAAS_API_TOKEN": f"{TOKEN} "},
        {"ATOM_SAAS_WS_URL": f"wss://market.example/ws?token={TOKEN}"},
        {"ATOM_SAAS_API_URL": f"https://{TOKEN}@market.example"},
        {"ATOM_SAAS_API_URL": TOKEN},
    ],
)
def test_no_fault_shows_the_token(values: dict[str, str]) -> None:
    reported = "".join(map(repr, find_problems(SimpleNamespace(**{**GOOD, **values}))))
    assert reported
    assert TOKEN not in reported


def test_the_token_shows_only_when_revealed() -> None:
    config = load()
    assert TOKEN not in f"{config} {config!r} {config.api_token} {config.api_token!r}"
    assert config.api_token.reveal() == TOKEN
    assert config.api_token
    assert not Secret("")


values = st.one_of(
    st.text(max_size=40), st.integers(), st.floats(), st.booleans(), st.binary(max_size=5), st.none(),
    st.lists(st.floats() | st.text(max_size=5), max_size=4),
    st.sampled_from(["https://", "wss://h:1/é", "https://[", "//x", "https://%zz", "1,2", "1e5", "\ud800", "https://ⅷ.x"]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), values))
def test_whatever_is_configured_is_a_config_or_faults(configured: dict[str, Any]) -> None:
    try:
        config = load_config(SimpleNamespace(**configured))
    except ConfigError as error:
        assert all(fault.level == "error" and fault.hint for fault in error.problems)
        return
    for setting in SETTINGS:
        value = getattr(config, setting.field)
        if setting.kind in (Kind.INT, Kind.FLOAT):
            assert setting.least * setting.scale <= value <= setting.most * setting.scale or value == 0


@pytest.mark.parametrize(
    ("raw", "prefix"),
    [
        (None, "/api/v1"), ("", ""), (" ", ""), ("/", ""), ("/api/v1", "/api/v1"), ("/api/v1/", "/api/v1"),
        ("marketplace", "/marketplace"), ("/api/v1/marketplace", "/api/v1/marketplace"), ("/~a/b%20c", "/~a/b%20c"),
    ],
)  # fmt: skip
def test_the_prefix_is_a_path_or_nothing(raw: str | None, prefix: str) -> None:
    assert load(ATOM_SAAS_API_PREFIX=raw).api_prefix == prefix


@pytest.mark.parametrize(
    "raw", ["https://h/api", "/a//b", "/a?b", "/a#b", "/a b", "/../x", "/a/./b", "/é", "//h/api", "/a\nb", 5]
)
def test_what_is_no_path_is_an_error(raw: Any) -> None:
    assert ids(ATOM_SAAS_API_PREFIX=raw) == ["E070"]


@pytest.mark.parametrize(("raw", "auth"), [("", "bearer"), ("Bearer", "bearer"), ("X-API-Token", "X-API-Token"),
                                           ("Authorization", "Authorization"), ("bearer ", "bearer")])  # fmt: skip
def test_the_token_goes_as_bearer_or_in_a_header(raw: str, auth: str) -> None:
    assert load(ATOM_SAAS_API_AUTH=raw).api_auth == auth
    assert load(ATOM_SAAS_WS_AUTH=raw or "bearer").ws_auth == auth


@pytest.mark.parametrize(("raw", "auth"), [("", "query:token"), ("query:key", "query:key"), ("Query:a.b", "query:a.b")])
def test_the_streams_token_may_be_a_parameter(raw: str, auth: str) -> None:
    assert load(ATOM_SAAS_WS_AUTH=raw).ws_auth == auth


@pytest.mark.parametrize("raw", ["X Token", "X-Token:", "X-Token: secret", "Host", "content-length", "Upgrade", "é", 5,
                                 "Sec-WebSocket-Key", "User-Agent", "X-T\r\nX-U"])  # fmt: skip
def test_what_is_no_header_of_ones_own_is_an_error(raw: Any) -> None:
    assert ids(ATOM_SAAS_API_AUTH=raw) == ["E071"]
    assert ids(ATOM_SAAS_WS_AUTH=raw) == ["E072"]


def test_a_parameter_is_of_the_stream_alone_and_needs_a_name() -> None:
    assert ids(ATOM_SAAS_API_AUTH="query:token") == ["E071"]
    assert ids(ATOM_SAAS_WS_AUTH="query:") == ids(ATOM_SAAS_WS_AUTH="query:a b") == ["E072"]
    assert ids(ATOM_SAAS_WS_AUTH="query") == ["E072"], "a parameter without a name, and no header"


def test_a_token_written_where_its_place_belongs_is_not_shown() -> None:
    (fault,) = find_problems(SimpleNamespace(**GOOD, ATOM_SAAS_API_AUTH=f"Bearer {TOKEN}"))
    assert TOKEN not in f"{fault.message} {fault.hint}"


def test_a_prefix_that_the_url_has_already_is_a_warning() -> None:
    assert ids(ATOM_SAAS_API_URL="https://market.example/api/v1") == ["W073"]
    assert ids(ATOM_SAAS_API_URL="https://market.example/api/v1", ATOM_SAAS_API_PREFIX="") == []
    assert ids(ATOM_SAAS_API_URL="https://market.example/api", ATOM_SAAS_API_PREFIX="/marketplace") == []
