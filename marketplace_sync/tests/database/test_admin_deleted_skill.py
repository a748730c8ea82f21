"""The page of a deleted skill: when and by what it was deleted, and its changes."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import FeedChange, Skill, SyncRun, Tombstone
from marketplace_sync.protocol.events import SkillDeleted
from marketplace_sync.tests.database.test_mirror_apply import Feeder, whole
from marketplace_sync.tests.support.admin_rows import person

pytestmark = pytest.mark.django_db

HOSTILE = "../a/b?c#d\u202e<script>"


@pytest.fixture
def feed() -> Feeder:
    return Feeder(acquire("test:1"))


@pytest.fixture
def viewer(client: Client) -> Client:
    client.force_login(person("viewer"))
    return client


def change(object_id: object) -> str:
    return reverse("admin:marketplace_sync_skill_change", args=(object_id,))


@pytest.mark.parametrize("skill_id", ["s1", HOSTILE, "77"])
def test_url_of_a_deleted_skill_shows_its_deletion(viewer: Client, feed: Feeder, skill_id: str) -> None:
    feed(whole(skill_id, 1, name="Mailer"))
    row = Skill.objects.get().pk
    assert viewer.get(change(row)).status_code == 200
    feed(SkillDeleted(skill_id, None))
    answer = viewer.get(change(row))
    body = answer.content.decode()
    assert answer.status_code == 404
    assert "This skill is deleted" in body
    assert "Mailer" in body
    assert "the stream" in body
    deleted = FeedChange.objects.get(kind="skill_deleted")
    assert reverse("admin:marketplace_sync_feedchange_change", args=(deleted.seq,)) in body
    assert f"{deleted.at:%Y-%m-%d %H:%M:%S}Z" in body
    assert "\u202e" not in body and "<script>" not in body
    # The feed's own page links to it.
    record = viewer.get(reverse("admin:marketplace_sync_feedchange_change", args=(deleted.seq,))).content.decode()
    assert reverse("admin:marketplace_sync_skill_deleted") in record
    by_id = viewer.get(reverse("admin:marketplace_sync_skill_deleted"), {"key": skill_id})
    assert (by_id.status_code, "This skill is deleted" in by_id.content.decode()) == (404, True)


def test_deletion_by_a_full_sync_names_its_run(viewer: Client, feed: Feeder) -> None:
    now = timezone.now()
    run = SyncRun.objects.create(reason="poll", state="done", started_at=now, finished_at=now)
    feed(whole("s1", 1))
    row = Skill.objects.get().pk
    feed(SkillDeleted("s1", None), polled=True, run_id=run.pk)
    body = viewer.get(change(row)).content.decode()
    assert "a full sync: the marketplace no longer listed it" in body
    assert reverse("admin:marketplace_sync_syncrun_change", args=(run.pk,)) in body


def test_recreated_skill_is_found_by_its_id(viewer: Client, feed: Feeder) -> None:
    feed(whole("s1", 1))
    feed(SkillDeleted("s1", None))
    feed(whole("s1", 2))
    now = Skill.objects.get().pk
    for address in (change("s1"), f"{reverse('admin:marketplace_sync_skill_deleted')}?key=s1"):
        answer = viewer.get(address)
        assert (answer.status_code, answer["Location"]) == (302, change(now))


def test_feed_or_tombstone_alone_is_enough(viewer: Client, feed: Feeder) -> None:
    feed(whole("s1", 1), whole("s2", 1))
    feed(SkillDeleted("s1", None), SkillDeleted("s2", None))
    Tombstone.objects.filter(skill_id="s1").delete()
    FeedChange.objects.filter(key="s2").delete()
    for skill_id in ("s1", "s2"):
        assert "This skill is deleted" in viewer.get(change(skill_id)).content.decode()


def test_unknown_skill_is_a_plain_404(viewer: Client) -> None:
    for address in (change("never"), change("12345"), f"{reverse('admin:marketplace_sync_skill_deleted')}?key=a%00"):
        answer = viewer.get(address)
        assert answer.status_code == 404
        assert "This skill is deleted" not in answer.content.decode()


def test_api_still_answers_404_as_json(viewer: Client, feed: Feeder) -> None:
    feed(whole("s1", 1))
    feed(SkillDeleted("s1", None))
    answer = viewer.get("/api/skills/s1/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")


def test_account_without_access_sees_no_deleted_skill(client: Client, feed: Feeder) -> None:
    feed(whole("s1", 1))
    feed(SkillDeleted("s1", None))
    client.force_login(person("nobody", staff=False))
    assert client.get(f"{reverse('admin:marketplace_sync_skill_deleted')}?key=s1").status_code == 302
