"""What the fuzzer found worth keeping, and nasty things picked by hand, each put to every decoder and to a database."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketplace_sync.engine.merge import StoredSkill, arrival_number
from marketplace_sync.mirror.apply import apply_batch
from marketplace_sync.mirror.arrived import Arrived
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.load import load_categories, load_slots
from marketplace_sync.models import Category, FeedChange, Skill, catalogue
from marketplace_sync.protocol.events import CategoryRecord, Change, SkillRecord
from marketplace_sync.protocol.limits import MAX_CATEGORY_CHARS, MAX_ID_CHARS
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.tests.fuzz import checks
from marketplace_sync.tests.fuzz.checks import NOW, check_input
from marketplace_sync.tests.fuzz.grammar import spoiled, starters

CORPUS = sorted(path for path in (Path(__file__).parent / "corpus").iterdir() if path.is_file())
# So that the repository does not become an archive of noise.
MAX_CORPUS_BYTES = 200_000


def inputs() -> list[bytes]:
    """Return the corpus, and 600 more inputs that are always the same."""
    known = [*starters(), *(path.read_bytes() for path in CORPUS)]
    rng = random.Random(1)
    return known + [spoiled(rng.choice(known), rng) for _ in range(600)]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_every_corpus_input_is_decoded_or_refused(path: Path) -> None:
    check_input(path.read_bytes())


def test_corpus_exists_and_is_small() -> None:
    assert CORPUS
    assert sum(path.stat().st_size for path in CORPUS) <= MAX_CORPUS_BYTES


def accepted(data: bytes) -> list[Change]:
    """Return every event that any of the decoders makes of this input."""
    found: list[Change] = []
    readings: tuple[Callable[[], Any], ...] = (
        lambda: [decode_message(data.decode("utf-8", "surrogateescape"), server_now=NOW)],
        lambda: [decode_skill(data, server_now=NOW)],
        lambda: decode_skill_page(data, server_now=NOW).skills,
        lambda: decode_category_page(data, server_now=NOW).categories,
    )
    for read in readings:
        try:
            found += [event for event in read() if isinstance(event, Change)]
        except DecodeError:
            continue
    return found


@pytest.mark.django_db(transaction=True)
def test_every_accepted_input_is_stored_unchanged() -> None:
    lease = acquire("corpus:1")
    events = [event for data in inputs() for event in accepted(data)]
    assert len(events) > 150, "refusals alone would prove little"
    for count, event in enumerate(events, 1):
        item = Arrived(event, arrival_number(lease.epoch, count), FeedChange.Source.STREAM, forced=True)
        apply_batch([item], lease)
        match event:
            case SkillRecord():
                (skill,) = load_slots([event.skill_id]).values()
                assert isinstance(skill, StoredSkill)
                assert {name: skill.fields[name] for name in event.fields} == stored(event.fields)
                assert {name: skill.extra[name] for name in event.extra} == event.extra
            case CategoryRecord():
                (category,) = load_categories([event.name])[0].values()
                assert {name: category.fields[name] for name in event.fields} == stored(event.fields)
    # And what subscribers get is JSON that they can read.
    for change in FeedChange.objects.all():
        json.dumps(change.data, allow_nan=False).encode()


def stored(fields: Any) -> dict[str, Any]:
    """Return the fields as they are stored: `created_at` is cut at the microsecond."""
    row = dict(fields)
    if (created := row.get("remote_created_at")) is not None:
        row["remote_created_at"] = created[:26].rstrip("0").rstrip(".") if "." in created else created
    return row


def test_fuzzer_checks_the_widths_of_the_columns() -> None:
    def width(model: type, name: str) -> int | None:
        return getattr(model._meta.get_field(name), "max_length", None)  # type: ignore[attr-defined]

    for name, most in checks.WIDTHS.items():
        assert width(Category if name == "icon_url" else Skill, name) == most, name
    assert width(Skill, "skill_id") == width(FeedChange, "key") == MAX_ID_CHARS
    assert width(Category, "name") == MAX_CATEGORY_CHARS <= MAX_ID_CHARS
    assert checks.STAMP_CHARS == catalogue.STAMP_CHARS
