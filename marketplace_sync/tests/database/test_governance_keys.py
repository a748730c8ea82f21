"""Keys of agents: shown once, stored as hashes; issue, expiry, revocation, rotation and lookup."""

import hashlib
from datetime import timedelta

import pytest
import time_machine
from django.db import connection, models
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from marketplace_sync.governance.actions import (
    DisableAgent,
    EnableAgent,
    IssuedKey,
    IssueKey,
    RegisterAgent,
    RevokeKey,
    RotateKey,
)
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.governance.keys import find_key
from marketplace_sync.models import Agent, AgentKey, AuditRow

pytestmark = pytest.mark.django_db


@pytest.fixture
def scout(db: None) -> Agent:
    return RegisterAgent("scout", "INTERN", actor=COMMAND_LINE).perform()


def issue(expires_in: timedelta | None = None) -> IssuedKey:
    return IssueKey("scout", expires_in, actor=COMMAND_LINE).perform()


def refusals() -> list[tuple[str, str, str]]:
    rows = AuditRow.objects.filter(verb="use_key").order_by("pk")
    return [(row.actor, row.target, row.details["why"]) for row in rows]


def everything_stored() -> str:
    """Return all text of all rows of the tables that a key could get into."""
    return "\n".join(repr(list(model._default_manager.values_list())) for model in (AgentKey, Agent, AuditRow))


def test_a_key_is_found_and_only_its_hash_is_stored(scout: Agent) -> None:
    key, raw = issue()
    found = find_key(raw)
    assert found == key and found is not None and found.agent == scout
    assert key.digest == hashlib.sha512(raw.encode()).hexdigest()
    assert raw.startswith("mirror_") and len(raw) == 71
    assert raw not in everything_stored()
    assert raw not in repr(IssuedKey(key, raw))


def test_an_agent_may_have_many_keys(scout: Agent) -> None:
    first, second = issue(), issue()
    assert first.raw != second.raw
    assert find_key(first.raw) == first.key and find_key(second.raw) == second.key


def test_an_unknown_key_is_not_found_and_not_audited(scout: Agent) -> None:
    _, raw = issue()
    before = AuditRow.objects.count()
    for other in ("", "mirror_", raw[:-1], raw + "0", raw.upper(), raw[:15], "é" * 71, "\ud800", "x" * 10_000_000):
        assert find_key(other) is None
    assert AuditRow.objects.count() == before


def test_a_key_lookup_is_one_query_by_a_unique_index(scout: Agent) -> None:
    keys = [issue() for _ in range(5)]
    find_key(keys[0].raw)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert find_key(keys[0].raw) is not None
        assert find_key("mirror_unknown") is None
    assert len(queries) == 2
    digest = AgentKey._meta.get_field("digest")
    assert isinstance(digest, models.CharField) and digest.unique


def test_invalid_keys_are_answered_alike_and_audited_by_cause(scout: Agent) -> None:
    expired, revoked, disabled = issue(timedelta(hours=1)), issue(), issue()
    RevokeKey(revoked.key.pk, actor=COMMAND_LINE).perform()
    with time_machine.travel(timezone.now() + timedelta(hours=2), tick=False):
        assert find_key(expired.raw) is None
    assert find_key(revoked.raw) is None
    DisableAgent("scout", actor=COMMAND_LINE).perform()
    assert find_key(disabled.raw, origin="api 127.0.0.1") is None
    assert refusals() == [
        ("agent:scout", f"key {expired.key.pk}", "expired"),
        ("agent:scout", f"key {revoked.key.pk}", "revoked"),
        ("agent:scout", f"key {disabled.key.pk}", "of a disabled agent"),
    ]
    row = AuditRow.objects.first()
    assert row is not None and (row.allowed, row.origin, row.actual) == (False, "api 127.0.0.1", "INTERN")
    EnableAgent("scout", actor=COMMAND_LINE).perform()
    assert find_key(disabled.raw) == disabled.key
    assert AgentKey.objects.count() == 3  # nothing is deleted in passing


def test_a_refused_key_is_audited_once_per_hour(scout: Agent) -> None:
    key, raw = issue()
    RevokeKey(key.pk, actor=COMMAND_LINE).perform()
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(90):
            assert find_key(raw) is None
            clock.shift(60)
    assert len(refusals()) == 2


def test_the_last_use_of_a_key_is_noted_once_per_minute(scout: Agent) -> None:
    key, raw = issue()
    begin = timezone.now()
    with time_machine.travel(begin, tick=False) as clock:
        find_key(raw)
        clock.shift(59)
        find_key(raw)
        key.refresh_from_db()
        assert key.last_used_at == begin
        clock.shift(1)
        find_key(raw)
        key.refresh_from_db()
        assert key.last_used_at == begin + timedelta(minutes=1)


def test_rotate_revokes_a_key_and_issues_one_with_the_same_life_span(scout: Agent) -> None:
    old = issue(timedelta(days=10))
    new = RotateKey(old.key.pk, actor=COMMAND_LINE).perform()
    assert find_key(old.raw) is None
    assert find_key(new.raw) == new.key
    assert abs((new.key.expiry - new.key.created) - timedelta(days=10)) < timedelta(seconds=1)
    old.key.refresh_from_db()
    assert (old.key.revoked_by, old.key.state(timezone.now())) == ("command line", "revoked")
    with pytest.raises(NotPossibleError):
        RotateKey(old.key.pk, actor=COMMAND_LINE).perform()
    row = AuditRow.objects.filter(verb="rotate_key", outcome="performed").get()
    assert row.details["new_key"] == new.key.pk and row.details["agent"] == "scout"


def test_a_key_of_a_person_is_refused(scout: Agent, admin_user: object) -> None:
    _, raw = AgentKey.objects.create(user=admin_user, created_by="someone")
    assert find_key(raw) is None


def test_the_user_of_an_agent_cannot_be_deleted(scout: Agent) -> None:
    with pytest.raises(ProtectedError):
        scout.user.delete()
