"""Proxies: one rule for HTTP and stream, a real proxy that both go through, and a login that nobody sees."""

import base64
from typing import Any

import pytest

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.logs import install, redact
from marketplace_sync.models import Skill
from marketplace_sync.tests.support.connect_proxy import ConnectProxy
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.tls_front import behind_tls
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp, reasons
from marketplace_sync.upstream.access import access_problems
from marketplace_sync.upstream.errors import UnreachableError
from marketplace_sync.upstream.proxies import named, proxy_for
from marketplace_sync.upstream.stream import Stream

# Only the proxies of the tests resolve it to this machine: a connection that reaches it went through one.
HOST = "market.invalid"


def chosen(address: str, no_proxy: str = "", **proxies: str) -> str:
    """Return the setting whose proxy leads there; "" for none."""
    urls: dict[str, Any] = {f"{name}_proxy": Secret(f"http://{name}.example:3128") for name in proxies}
    found = proxy_for(SyncConfig(no_proxy=no_proxy, **urls), address)
    return found.setting if found is not None else ""


@pytest.mark.parametrize("stream", [False, True], ids=["http", "stream"])
def test_http_and_stream_use_the_same_proxy(stream: bool) -> None:
    clear, secure = ("ws", "wss") if stream else ("http", "https")
    assert chosen(f"{secure}://m.example", https="") == "HTTPS_PROXY"
    assert chosen(f"{clear}://m.example", http="") == "HTTP_PROXY"
    assert chosen(f"{secure}://m.example", http="") == chosen(f"{clear}://m.example", https="") == ""
    assert chosen(f"{secure}://m.example", https="", all="") == "HTTPS_PROXY"
    assert chosen(f"{secure}://m.example", http="", all="") == "ALL_PROXY"
    assert chosen(f"{clear}://m.example", all="") == "ALL_PROXY"
    assert chosen(f"{clear}://m.example") == ""
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "[::1]"):
        assert chosen(f"{secure}://{host}:8443", all="") == ""
    assert chosen(f"{secure}://m.example:8443", no_proxy="m.example:443", all="") == "ALL_PROXY"
    assert chosen(f"{secure}://m.example", no_proxy="m.example:443", all="") == ""


@pytest.mark.parametrize(
    ("entries", "host", "port", "inside"),
    [
        ("*", "m.example", 443, True),
        ("other, m.example", "m.example", 443, True),
        ("other m.example", "m.example", 443, True),
        ("M.Example", "m.eXample.", 443, True),
        ("example", "m.example", 443, True),
        (".example", "m.example", 443, True),
        (".m.example", "m.example", 443, True),
        ("*.example", "m.example", 443, True),
        ("ample", "m.example", 443, False),
        ("api.m.example", "m.example", 443, False),
        ("m.example:443", "m.example", 443, True),
        ("m.example:444", "m.example", 443, False),
        ("10.0.0.0/8", "10.9.8.7", 443, True),
        ("10.0.0.0/8", "11.9.8.7", 443, False),
        ("10.9.8.7", "10.9.8.7", 443, True),
        ("10.9.8.7:80", "10.9.8.7", 443, False),
        ("0.0.0.0/0", "m.example", 443, False),
        ("fd00::/8", "fd12::1", 443, True),
        ("[fd12::1]:443", "fd12::1", 443, True),
        ("fd12::1", "fd12::2", 443, False),
        ("", "m.example", 443, False),
        (" , .,*.,/,:,[,10.0.0.0/99", "m.example", 443, False),
    ],
)
def test_no_proxy_names_hosts_and_all_below_them_addresses_and_networks(
    entries: str, host: str, port: int, inside: bool
) -> None:
    assert named(entries, host, port) is inside


@pytest.mark.django_db(transaction=True)
async def test_the_mirror_goes_live_through_a_proxy_without_tls() -> None:
    async with marketplace() as server, ConnectProxy() as proxy:
        far = {"api_url": f"http://{HOST}:{server.port}", "ws_url": f"ws://{HOST}:{server.port}/ws"}
        async with mirror(server, **far, all_proxy=Secret(f"http://{proxy.address}")) as running:
            await running.until_state("live")
            assert await running.ask(Skill.objects.count) == 25
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT", "GET"}


def config(**changes: Any) -> SyncConfig:
    """Return settings for a marketplace where nobody answers but a proxy."""
    return behind_tls(1, HOST, **changes)


async def test_a_host_in_no_proxy_is_reached_without_a_proxy() -> None:
    async with ConnectProxy() as proxy:
        found = await reasons(config(https_proxy=Secret(f"http://{proxy.address}"), no_proxy=".invalid"))
        assert proxy.asked == []
        assert not [reason for reason in found if "proxy" in reason]


async def test_the_reason_names_a_proxy_that_fails() -> None:
    async with ConnectProxy(login="user:another") as proxy:
        at = proxy.address
        found = await reasons(config(https_proxy=Secret(f"http://{at}")))
        assert found == [
            f"the marketplace can't be reached through the proxy {at}: it answers HTTP 407",
            f"the stream can't be reached through the proxy {at}: it answers HTTP 407",
        ]
    found = await reasons(config(https_proxy=Secret(f"http://{at}")))
    assert found == [
        f"the marketplace can't be reached through the proxy {at}: Connection refused",
        f"the stream can't be reached through the proxy {at}: Connection refused",
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "it gives no HTTP answer"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "it gives no HTTP answer"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "it answers HTTP 502"),
        (b"", "the proxy closed the connection"),
    ],
    ids=["no HTTP", "no end", "502", "nothing"],
)
async def test_the_reason_contains_the_answer_of_a_proxy_that_opens_no_tunnel(answer: bytes, reason: str) -> None:
    async with ScriptedHttp(answer) as proxy:
        at = f"127.0.0.1:{proxy.port}"
        with pytest.raises(UnreachableError) as caught:
            await Stream.open(config(https_proxy=Secret(f"http://{at}")))
    assert caught.value.reason == f"the stream can't be reached through the proxy {at}: {reason}"


@pytest.mark.usefixtures("everything_logged")
@pytest.mark.parametrize("login", ["mirror:pa%2Fss-w0rd", "only-a-key"], ids=["password", "user alone"])
async def test_the_login_of_a_proxy_is_sent_and_never_seen(caplog: pytest.LogCaptureFixture, login: str) -> None:
    install()
    plain = login.replace("%2F", "/") if ":" in login else f"{login}:"
    secret = login.partition(":")[2] or login
    async with ConnectProxy(login=plain) as proxy:
        settings = config(https_proxy=Secret(f"http://{login}@{proxy.address}"))
        found = await reasons(settings)  # let through by the proxy, and nobody behind it
        assert len(proxy.tunnels) == 1 and not [reason for reason in found if "407" in reason]
    found += await reasons(settings)  # and no proxy any more
    seen = "".join([*found, repr(settings), str(proxy_for(settings, settings.api_url))])
    seen += "".join(record.getMessage() for record in caplog.records)
    for form in (secret, secret.replace("%2F", "/"), base64.b64encode(plain.encode()).decode()):
        assert form not in seen
        assert redact(f"<{form}>") == "<***>"  # whatever prints it


def test_a_socks_proxy_is_an_error_only_where_it_would_be_used() -> None:
    socks = Secret("socks5://proxy.example:1080")
    (problem,) = access_problems(config(all_proxy=socks))
    assert (problem.id, problem.message) == (
        "marketplace_sync.E057", "ALL_PROXY names a SOCKS proxy, which is not supported.",
    )  # fmt: skip
    assert access_problems(config(all_proxy=socks, no_proxy=HOST)) == ()
    assert access_problems(config(all_proxy=socks, https_proxy=Secret("http://proxy.example"))) == ()
