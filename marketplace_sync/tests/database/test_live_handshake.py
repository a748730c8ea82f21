"""Who may follow the change feed, and what is event to those who may not."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from marketplace_sync.governance.actions import DisableAgent, RevokeKey
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.live.handshake import SubscriptionRefusedError, parse_query, read_handshake
from marketplace_sync.live.hub import Hub
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.live.messages import FeedFilter
from marketplace_sync.models import AgentKey
from marketplace_sync.tests.support.live_feed import QUICK, Visitor, agent_key, ask, bearer

pytestmark = pytest.mark.django_db(transaction=True)

HERE = ("Origin", "http://127.0.0.1:8000")
ELSEWHERE = ("Origin", "https://evil.example")
Headers = list[tuple[str, str]]


def session_of(**flags: Any) -> Headers:
    """Return the cookie of a user who is logged in."""
    user = get_user_model().objects.create_user("ada", password="x", **flags)
    browser = Client()
    browser.force_login(user)
    return [("Cookie", f"theme=dark; sessionid={browser.cookies['sessionid'].value}")]


def key_of(maturity: Maturity = Maturity.STUDENT, spoil: Callable[[AgentKey], object] = lambda key: None) -> Headers:
    headers = bearer(agent_key(maturity=maturity))
    spoil(AgentKey.objects.get())
    return headers


def expire(key: AgentKey) -> None:
    AgentKey.objects.update(expiry=timezone.now() - timedelta(seconds=1))


def revoke(key: AgentKey) -> None:
    RevokeKey(key.pk, actor=COMMAND_LINE).perform()


def disable(key: AgentKey) -> None:
    DisableAgent(key.agent.name, actor=COMMAND_LINE).perform()


def logged_out() -> Headers:
    headers = session_of()
    Session.objects.all().delete()
    return headers


def inactive() -> Headers:
    headers = session_of()
    get_user_model().objects.update(is_active=False)
    return headers


IN = None
# Who, and the code for: no origin, a page of ours, a page of somebody else's.
MATRIX: dict[str, tuple[Callable[[], Headers], tuple[int | None, int | None, int | None]]] = {
    "nobody": (lambda: [], (4401, 4401, 4403)),
    "bad key": (lambda: bearer("mirror_" + "0" * 64), (4401, 4401, 4403)),
    "empty key": (lambda: bearer(""), (4401, 4401, 4403)),
    "no text": (lambda: bearer("\xff\xfe"), (4401, 4401, 4403)),
    "another scheme": (lambda: [("Authorization", "Basic YWRhOng=")], (4401, 4401, 4403)),
    "expired key": (lambda: key_of(spoil=expire), (4401, 4401, 4403)),
    "revoked key": (lambda: key_of(spoil=revoke), (4401, 4401, 4403)),
    "disabled agent": (lambda: key_of(spoil=disable), (4401, 4401, 4403)),
    "STUDENT": (lambda: key_of(Maturity.STUDENT), (IN, IN, 4403)),
    "INTERN": (lambda: key_of(Maturity.INTERN), (IN, IN, 4403)),
    "SUPERVISED": (lambda: key_of(Maturity.SUPERVISED), (IN, IN, 4403)),
    "AUTONOMOUS": (lambda: key_of(Maturity.AUTONOMOUS), (IN, IN, 4403)),
    "person": (session_of, (4401, IN, 4403)),
    "staff": (lambda: session_of(is_staff=True), (4401, IN, 4403)),
    "superuser": (lambda: session_of(is_staff=True, is_superuser=True), (4401, IN, 4403)),
    "person, bad key": (lambda: session_of() + bearer("no"), (4401, 4401, 4403)),
    "logged out": (logged_out, (4401, 4401, 4403)),
    "inactive person": (inactive, (4401, 4401, 4403)),
}


async def outcome(hub: Hub, headers: Headers, query: str = "", **where: str) -> int | None:
    """Return the close code, or `None` for a client that was admitted."""
    async with Visitor(hub, query, headers, **where) as visitor:
        event = await visitor.next_event()
        if event["type"] == "websocket.close":
            assert event["reason"]
            return event["code"]
        assert '"type":"ready"' in event["text"]
        return IN


@pytest.mark.parametrize("who", MATRIX)
async def test_feed_accepts_each_credential_only_from_allowed_origins(who: str, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["127.0.0.1", "mirror.example"]
    make, expected = MATRIX[who]
    headers = await ask(make)
    hub = Hub(QUICK)
    found = [await outcome(hub, headers + origin) for origin in ([], [HERE], [ELSEWHERE])]
    assert tuple(found) == expected


@pytest.mark.parametrize(
    ("served_at", "origin", "allowed"),
    [
        ("ws://mirror.example", "http://mirror.example", True),
        ("ws://mirror.example", "http://mirror.example:80", True),
        ("ws://MIRROR.example:8443", "http://mirror.example:8443", True),
        ("wss://mirror.example", "https://mirror.example", True),
        ("wss://mirror.example:443", "https://mirror.example", True),
        ("ws://[::1]:8000", "http://[::1]:8000", True),
        ("wss://a.wild.example", "https://a.wild.example", True),
        # Another port or scheme is another site, whose pages the browser sends our cookies for.
        ("ws://mirror.example:8000", "http://mirror.example:8001", False),
        ("ws://mirror.example:8000", "http://mirror.example", False),
        ("ws://mirror.example", "https://mirror.example", False),
        ("wss://mirror.example", "http://mirror.example", False),
        ("wss://mirror.example", "http://mirror.example:443", False),
        ("wss://a.wild.example", "https://b.wild.example", False),
        # A host that the site does not answer to, as after DNS rebinding.
        ("ws://evil.example", "http://evil.example", False),
        ("ws://mirror.example, evil.example", "http://mirror.example", False),
        ("wss://mirror.example", "https://mirror.example.evil.example", False),
        ("wss://mirror.example", "https://evilmirror.example", False),
        ("wss://mirror.example", "https://mirror.example/path", False),
        ("wss://mirror.example", "https://mirror.example@evil.example", False),
        ("wss://mirror.example", "https://evil.example@mirror.example", False),
        ("ws://mirror.example", "null", False),
        ("ws://mirror.example", "file://mirror.example", False),
        ("ws://mirror.example", "mirror.example", False),
        ("ws://mirror.example", "http://", False),
        ("ws://mirror.example", "http://[", False),
        ("ws://mirror.example", "http://mirror.example:port", False),
        # Named in CSRF_TRUSTED_ORIGINS.
        ("ws://mirror.example", "https://front.example:8443", True),
        ("ws://mirror.example", "https://front.example", False),
        ("ws://mirror.example", "https://x.apps.example", True),
        ("ws://mirror.example", "http://x.apps.example", False),
        ("ws://mirror.example", "https://apps.example.evil.example", False),
    ],
)
async def test_origin_must_match_scheme_host_and_port(
    served_at: str, origin: str, allowed: bool, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["mirror.example", ".wild.example", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://front.example:8443", "https://*.apps.example"]
    scheme, _, host = served_at.partition("://")
    headers = await ask(session_of)
    found = await outcome(Hub(QUICK), [*headers, ("Origin", origin)], scheme=scheme, host=host)
    assert found == (IN if allowed else 4403)


async def test_forwarded_scheme_counts_behind_a_tls_proxy(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["mirror.example"]
    headers = [*await ask(session_of), ("Origin", "https://mirror.example"), ("X-Forwarded-Proto", "https")]
    assert await outcome(Hub(QUICK), headers, host="mirror.example") == 4403
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert await outcome(Hub(QUICK), headers, host="mirror.example") is IN


@pytest.mark.parametrize("name", ["key", "token", "access_token", "Authorization"])
async def test_key_in_the_url_is_refused_even_if_valid(name: str) -> None:
    key = await ask(agent_key)
    async with Visitor(Hub(QUICK), f"{name}={key}", bearer(key)) as visitor:
        code, reason = await visitor.closed()
        assert code == 4400 and "Authorization: Bearer" in reason and key not in reason


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("since=5", "'since'"),
        ("after=5&after=6", "after"),
        ("after=-1", "after"),
        ("after=5.0", "after"),
        ("after=%D9%A1", "after"),
        ("after=" + "9" * 19, "after"),
        ("after=", "after"),
        ("kind=skill_exploded", "'skill_exploded'"),
        ("category=", "category"),
        ("skill_id=%ff", "UTF-8"),
        ("after=0&skill_id=a%00b", "NUL"),
        ("category=%00", "NUL"),
        ("&".join(["skill_id=a"] * 1001), "1000"),
        ("x" * 300, "Unknown parameter"),
    ],
)
async def test_invalid_query_is_refused_with_the_reason(query: str, expected: str) -> None:
    async with Visitor(Hub(QUICK), query) as visitor:
        code, reason = await visitor.closed()
        assert code == 4400 and expected in reason and len(reason.encode()) <= 123


def test_query_is_parsed() -> None:
    after, wanted = parse_query(
        b"after=007&kind=skill_created&kind=skill_deleted&skill_id=a%20b&category=%C3%A4&skill_id=c"
    )
    assert after == 7
    assert wanted == FeedFilter(
        frozenset(("skill_created", "skill_deleted")), frozenset(("ä",)), frozenset(("a b", "c"))
    )
    assert parse_query(b"") == (None, FeedFilter())


@pytest.mark.parametrize("name", [b"origin", b"authorization"])
def test_repeated_origin_or_authorization_header_is_refused(name: bytes) -> None:
    with pytest.raises(SubscriptionRefusedError) as caught:
        read_handshake({"headers": [(name, b"a"), (name, b"b")], "client": None})
    assert caught.value.code == 4400


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: AgentKey.objects.filter(user__mirror_agent__name="reader").update(expiry=timezone.now()),
        lambda: RevokeKey(AgentKey.objects.get(user__mirror_agent__name="reader").pk, actor=COMMAND_LINE).perform(),
        lambda: DisableAgent("reader", actor=COMMAND_LINE).perform(),
    ],
    ids=["expired", "revoked", "disabled"],
)
async def test_key_that_ends_while_connected_closes_within_a_heartbeat(spoil: Callable[[], object]) -> None:
    key, other = await ask(agent_key), await ask(agent_key, "other")
    hub = Hub(SubscriptionLimits(poll=0.02, gap=0.005, heartbeat=0.1))
    async with Visitor(hub, headers=bearer(key)) as visitor, Visitor(hub, headers=bearer(other)) as stays:
        assert (await visitor.message())["type"] == "ready"
        assert (await visitor.message())["type"] == "heartbeat"
        await ask(spoil)
        event = await visitor.next_event()
        while event["type"] == "websocket.send":
            event = await visitor.next_event()
        assert event["code"] == 4401
        assert (await stays.message())["type"] == "ready"
        assert (await stays.message())["type"] == "heartbeat"
        assert hub.subscribers == 1


async def test_logout_closes_the_connection_within_a_heartbeat() -> None:
    headers = await ask(session_of)
    hub = Hub(SubscriptionLimits(poll=0.02, gap=0.005, heartbeat=0.1))
    async with Visitor(hub, headers=[*headers, HERE]) as visitor:
        assert (await visitor.message())["type"] == "ready"
        await ask(Session.objects.all().delete)
        event = await visitor.next_event()
        while event["type"] == "websocket.send":
            event = await visitor.next_event()
        assert event["code"] == 4401


async def test_unknown_websocket_path_is_refused_before_the_handshake() -> None:
    visitor = Visitor(Hub(QUICK), path="/ws/other/")
    assert (await visitor.connected())["type"] == "websocket.close"
