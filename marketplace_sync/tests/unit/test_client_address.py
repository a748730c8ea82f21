"""Whose address counts: the peer's, or the one that a proxy named in the settings reports."""

from types import SimpleNamespace

import pytest
from django.test import RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st

from atomproject.peer import RealPeer
from marketplace_sync.client_address import client_address, neighbourhood, of_request, of_scope
from marketplace_sync.conf import BY_NAME
from marketplace_sync.setting import InvalidValueError, Networks
from marketplace_sync.setting_values import parse


def networks(raw: str) -> Networks:
    parsed: Networks = parse(BY_NAME["TRUSTED_PROXIES"], raw)
    return parsed


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        # Nobody is trusted unasked, not even this machine.
        ("", "127.0.0.1", "203.0.113.9", "127.0.0.1"),
        ("10.0.0.0/8", "198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.0.0.0/8", "10.0.0.5", "203.0.113.9", "203.0.113.9"),
        # What the client wrote stands to the left of what the proxy wrote.
        ("10.0.0.0/8", "10.0.0.5", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.0/8", "10.0.0.5", "1.1.1.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        # A client within the trusted network: the leftmost of the chain.
        ("10.0.0.0/8", "10.0.0.5", "10.9.9.9", "10.9.9.9"),
        ("10.0.0.0/8", "10.0.0.5", "", "10.0.0.5"),
        ("10.0.0.0/8", "10.0.0.5", " , ", "10.0.0.5"),
        # What is no address ends the reading.
        ("10.0.0.0/8", "10.0.0.5", "203.0.113.9, evil", "10.0.0.5"),
        ("10.0.0.0/8", "10.0.0.5", "203.0.113.9, <script>, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.0/8", "10.0.0.5", "999.1.1.1", "10.0.0.5"),
        ("10.0.0.0/8", "10.0.0.5", "unknown, 203.0.113.9", "203.0.113.9"),
        # Ports, brackets, quotes, the IPv4 addresses of a dual-stack socket, zones.
        ("10.0.0.5", "::ffff:10.0.0.5", "203.0.113.9:4711", "203.0.113.9"),
        ("::1", "::1", '"[2001:db8::17]:4711"', "2001:db8::17"),
        ("::1,10.0.0.0/8", "::1", "2001:DB8:0::17,10.0.0.1:80", "2001:db8::17"),
        ("fe80::/10", "fe80::1%eth0", "203.0.113.9", "203.0.113.9"),
        ("unix", "", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.0/8", "", "203.0.113.9", ""),
    ],
)
def test_the_rightmost_address_that_is_no_proxy_counts(proxies: str, peer: str, forwarded: str, client: str) -> None:
    assert client_address(peer, forwarded, networks(proxies)) == client
    headers = {"X-Forwarded-For": forwarded}
    scope = {"client": (peer, 1) if peer else None, "headers": [(b"x-forwarded-for", forwarded.encode())]}
    with override_settings(TRUSTED_PROXIES=proxies):
        assert of_request(RequestFactory(REMOTE_ADDR=peer).get("/", headers=headers)) == client
        assert of_scope(scope) == client


@given(invented=st.lists(st.ip_addresses().map(str) | st.text(max_size=20), max_size=30).map(",".join))
def test_nothing_that_a_client_invents_changes_its_address(invented: str) -> None:
    assert client_address("127.0.0.1", f"{invented},203.0.113.9", networks("127.0.0.1")) == "203.0.113.9"
    assert client_address("203.0.113.9", invented, networks("127.0.0.1")) == "203.0.113.9"


def test_several_headers_are_one_list() -> None:
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"203.0.113.9, 10.0.0.7")]
    with override_settings(TRUSTED_PROXIES="10.0.0.0/8"):
        assert of_scope({"client": ("10.0.0.5", 1), "headers": headers}) == "203.0.113.9"


def test_an_invalid_setting_trusts_nobody() -> None:
    with override_settings(TRUSTED_PROXIES="10.0.0.0/8,nginx"):
        scope = {"client": ("10.0.0.5", 1), "headers": [(b"x-forwarded-for", b"203.0.113.9")]}
        assert of_scope(scope) == "10.0.0.5"
    with pytest.raises(InvalidValueError, match="'nginx', which is neither an address nor a network"):
        networks("10.0.0.0/8,nginx")


def test_limits_count_an_ipv6_network_as_one_client() -> None:
    assert neighbourhood("2001:db8:1:2:3:4:5:6") == neighbourhood("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert neighbourhood("2001:db8:1:3::1") != neighbourhood("2001:db8:1:2::1")
    assert neighbourhood("203.0.113.9") == neighbourhood("::ffff:203.0.113.9".removeprefix("::ffff:")) == "203.0.113.9"
    assert neighbourhood("") == "" and neighbourhood("testclient") == "testclient"


async def test_the_web_server_s_own_reading_of_the_header_does_not_count() -> None:
    seen = []

    async def application(scope: dict[str, object], receive: object, send: object) -> None:
        seen.append(scope["client"])

    class Connection:
        """What uvicorn's `send` is a method of."""

        def __init__(self, peer: object) -> None:
            self.transport = SimpleNamespace(get_extra_info={"peername": peer}.get)

        async def send(self, message: object) -> None: ...

    async def receive() -> dict[str, object]:
        return {}

    scope = {"client": ("203.0.113.9", 0)}
    for peer in (("127.0.0.1", 5), ("::1", 5, 0, 0), "", None):
        await RealPeer(application)(scope, receive, Connection(peer).send)  # type: ignore[arg-type]
    assert seen == [("127.0.0.1", 5), ("::1", 5), None, ("203.0.113.9", 0)]
