"""Replay of dead letters: applied again as they came, or by a fetch of the skill."""

import hashlib
import json
from typing import Any

import pytest
from django.utils import timezone

from marketplace_sync.governance.actions import DiscardDeadLetter, ReplayDeadLetter
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.models import Category, Command, DeadLetter, FeedChange, Skill
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)

REPLAY = Command.Action.REPLAY


def keep(raw: bytes | dict[str, Any], **fields: Any) -> int:
    """Store a dead letter as an older decoder would have. Return its id."""
    whole = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    now = timezone.now()
    given = {
        "source": "stream", "code": "bad_type", "reason": "not understood then", "kind": "", "key": "",
        "head": whole[:4096], "size": len(whole), "digest": hashlib.sha256(whole).hexdigest(), **fields,
    }  # fmt: skip
    return DeadLetter.objects.create(first_seen_at=now, last_seen_at=now, **given).pk


async def replayed(running: Mirror, raw: bytes | dict[str, Any], **fields: Any) -> tuple[Command, str]:
    """Return the daemon's answer, and the state of the dead letter after it."""
    dead_letter = await running.ask(keep, raw, **fields)
    answer = await running.command(REPLAY, dead_letter=dead_letter)
    return answer, (await running.ask(DeadLetter.objects.get, pk=dead_letter)).state


def update(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "skill_update", "data": skill(number, **fields)}


async def test_message_that_is_readable_now_is_applied_as_at_its_arrival() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        answer, state = await replayed(running, update(77, updated_at="2026-03-01T00:00:00Z"))
        assert (answer.state, answer.result["effect"], state) == ("done", "created", "replayed")
        change = await running.ask(FeedChange.objects.get, key="skill-00077")
        assert (change.kind, change.source) == ("skill_created", "repair")


@pytest.mark.parametrize(
    ("fields", "effect"),
    [
        ({}, "unchanged"),
        ({"name": "Old", "updated_at": "2025-01-01T00:00:00Z"}, "stale"),
        ({"name": "Of the same time, and long ago"}, "stale"),
        ({"name": "Of no time", "updated_at": None}, "stale"),
        ({"name": "Newer than the stored one", "updated_at": "2026-02-01T00:00:00Z"}, "updated"),
    ],
)
@pytest.mark.parametrize("source", ["stream", "listing", "fetch"])
async def test_overtaken_dead_letter_wins_only_by_its_own_time(
    source: str, fields: dict[str, Any], effect: str
) -> None:
    async with marketplace(skills=1) as server, mirror(server) as running:
        await running.until_state("live")
        raw = update(0, **fields) if source == "stream" else skill(0, **fields)
        answer, state = await replayed(running, raw, source=source)
        assert (answer.state, answer.result["effect"], state) == ("done", effect, "replayed")
        name = (await running.ask(Skill.objects.get)).name
        assert name == (fields["name"] if effect == "updated" else "Skill 0")
        # The dead letter contained everything: no single fetch was made.
        assert not [path for _, path, _ in server.requests if "skill-00000" in path]


async def test_category_row_is_replayed_as_a_category() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        row = {"id": 7, "name": "new-category", "description": "Replayed.", "skill_count": 1}
        answer, state = await replayed(running, row, source="listing", kind="category", key="new-category")
        assert (answer.state, answer.result["effect"], state) == ("done", "created", "replayed")
        assert (await running.ask(Category.objects.get, name="new-category")).description == "Replayed."


async def test_refused_category_row_is_a_dead_letter_of_its_kind() -> None:
    async with marketplace() as server, mirror(server, start=False) as running:
        server.market.categories["broken"] = {"name": "broken", "skill_count": "many"}
        await running.start()
        await running.until_state("live")
        dead_letter = await running.ask(DeadLetter.objects.get)
        assert (dead_letter.source, dead_letter.kind, dead_letter.key) == ("listing", "category", "broken")
        answer = await running.command(REPLAY, dead_letter=dead_letter.pk)
        assert answer.state == "failed"
        assert "next full sync reads all categories" in answer.result["detail"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(json.dumps(update(3, description="x" * 5000)).encode(), "too_large", id="cut"),
        pytest.param(b'{"type":"skill_update","data":{"skill_id":"skill-00003","name":7}}', "bad_type", id="refused"),
        pytest.param(b"\xff\x00", "binary", id="binary"),
        pytest.param(b'{"type":"skill_upd\xff', "bad_character", id="no-text"),
    ],
)
async def test_truncated_or_refused_dead_letter_is_replayed_by_a_fetch(raw: bytes, code: str) -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.put_skill({"skill_id": "skill-00003", "name": "As it is now"}, announce=False)
        answer, state = await replayed(running, raw, code=code, key="skill-00003")
        assert (answer.state, answer.result["effect"], state) == ("done", "updated", "replayed")
        assert (await running.ask(Skill.objects.get, skill_id="skill-00003")).name == "As it is now"
        assert (await running.difference()).in_sync


async def test_altered_dead_letter_is_not_applied_but_fetched() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        masked = update(3, name="*** where a token was", updated_at="2026-09-01T00:00:00Z")
        answer, state = await replayed(running, masked, key="skill-00003", digest="0" * 64)
        assert (answer.state, answer.result["effect"], state) == ("done", "unchanged", "replayed")


async def test_replay_removes_a_skill_that_the_marketplace_no_longer_has() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.delete_skill("skill-00003", announce=False)
        answer, state = await replayed(running, b"{", key="skill-00003")
        assert (answer.state, answer.result["effect"], state) == ("done", "removed", "replayed")


async def test_replayed_rating_without_figures_fetches_the_skill() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.rate("skill-00004", 1, announce=False)
        vote = {
            "type": "rating_update",
            "data": {"skill_id": "skill-00004", "rating": 1, "updated_at": "2026-09-01T00:00:00Z"},
        }
        answer, state = await replayed(running, vote, key="skill-00004")
        assert (answer.state, answer.result["effect"], state) == ("done", "updated", "replayed")
        assert (await running.ask(Skill.objects.get, skill_id="skill-00004")).rating_count == 3


@pytest.mark.parametrize(
    ("raw", "fields", "why"),
    [
        (b"[1]", {}, "names no skill"),
        (b"{}", {"kind": "category_update", "key": "automation"}, "next full sync reads all categories"),
        (b'{"type":"ping"}', {}, "heartbeat"),
        (b"{}", {"state": "discarded"}, "discarded already"),
    ],
)
async def test_failed_replay_has_a_reason_and_keeps_the_dead_letter_open(
    raw: bytes, fields: dict[str, Any], why: str
) -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        answer, state = await replayed(running, raw, **fields)
        assert (answer.state, state) == ("failed", fields.get("state", "open"))
        assert why in answer.result["detail"]


async def test_replay_fails_if_the_skill_cannot_be_fetched() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.skills["skill-00003"]["name"] = 7
        answer, state = await replayed(running, b"{", key="skill-00003")
        assert (answer.state, state) == ("failed", "open")
        assert "can't be read either" in answer.result["detail"]
        kept = await running.ask(DeadLetter.objects.get, source="fetch")
        assert (kept.key, kept.state) == ("skill-00003", "open")
        gone = await running.command(REPLAY, dead_letter=10**12)
        assert (gone.state, gone.result["detail"]) == ("failed", f"Dead letter {10**12} is no longer kept.")
        await running.until_state("live")


async def test_replayed_dead_letter_cannot_be_replayed_again() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.send_raw('{"type":"skill_update","data":{"skill_id":"skill-00001","name":7}}')
        await running.until_db(DeadLetter.objects.exists, "it is kept")
        dead_letter = await running.ask(DeadLetter.objects.get)
        asked = await running.ask(ReplayDeadLetter(dead_letter.pk, actor=COMMAND_LINE).perform)
        await running.until_db(lambda: not Command.objects.filter(finished_at=None).exists(), "it is answered")
        await running.ask(asked.refresh_from_db)
        assert (asked.state, asked.result["effect"]) == ("done", "unchanged")
        with pytest.raises(Exception, match="replayed already"):
            await running.ask(DiscardDeadLetter(dead_letter.pk, actor=COMMAND_LINE).perform)
