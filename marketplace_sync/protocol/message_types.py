"""The message types of the stream: one table, which decoding, repair, dead letters, metrics and the simulator read.

Everything that differs from type to type is a column here, except what an event does to the mirror: that is in
`engine/merge.py`. The section "A message type" of docs/contributing.md lists the steps to add one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

from marketplace_sync.protocol import fields
from marketplace_sync.protocol.events import (
    CategoryRecord,
    Change,
    Heartbeat,
    Ping,
    Pong,
    RatingChanged,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.records import (
    category_key,
    category_record,
    identified_skill,
    rating_figures,
    skill_key,
    skill_record,
)

# Takes the envelope's `data` and `timestamp`, then `doubtful` and `latest` (see `records`). Raises `DecodeError` that
# has no `key` and no `kind` yet.
Decoder = Callable[[dict[str, Any], Any, bool, str], Change]


class Subject(StrEnum):
    """What a message is about. The value is the field of `data` that identifies it."""

    SKILL = "skill_id"
    CATEGORY = "name"


class Repair(StrEnum):
    """The request that recovers the content of a message that could not be applied."""

    FETCH = "fetch"  # one request for that skill
    FULL_SYNC = "full sync"  # nothing less: the message marks a gap


class Announces(StrEnum):
    """What a message reports about the existence of its skill, even if it is shed and its content is lost."""

    PRESENT = "present"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, eq=False)
class MessageType:
    """One type of message.

    `name` is the envelope's `type`. `decode` makes an `event` of the message; `encode` makes `data` of the event, such
    that `decode` returns an equal event. `announces` is `None` where the message reports nothing about existence.
    """

    name: str
    event: type[Change]
    subject: Subject
    decode: Decoder
    encode: Callable[[Any], dict[str, Any]]
    announces: Announces | None = None

    def key_of(self, event: Change) -> str:
        """Return the skill id or the category name of one of this type's events."""
        key: str = getattr(event, self.subject.value)
        return key


def _decode_deletion(data: dict[str, Any], sent: Any, doubtful: bool, latest: str) -> SkillDeleted:
    """Return the removal. The envelope's time stands in for a `deleted_at` that is absent, null or too far ahead.

    The envelope's time is no part of the record: one that can't be read counts as none and refuses nothing.
    """
    skill_id, data = identified_skill(data, doubtful)
    deleted = fields.believable_time(data.get("deleted_at"), "deleted_at", latest)
    if deleted is None:
        sent_at = fields.readable_time(sent)
        deleted = None if sent_at is None or sent_at > latest else sent_at
    return SkillDeleted(skill_id, deleted)


def _decode_rating(data: dict[str, Any], sent: Any, doubtful: bool, latest: str) -> RatingChanged:
    """Return one vote, with the rating figures that the message has."""
    skill_id, data = identified_skill(data, doubtful)
    vote = fields.vote(data.get("rating"), "rating", doubtful)
    figures = rating_figures(data, doubtful)
    updated = fields.believable_time(data.get("updated_at"), "updated_at", latest)
    return RatingChanged(skill_id, vote, figures, updated)


def _encode_skill(record: SkillRecord) -> dict[str, Any]:
    return {**record.extra, **_wire_names(record.fields), "skill_id": record.skill_id, "updated_at": record.updated}


def _encode_deletion(event: SkillDeleted) -> dict[str, Any]:
    return {"skill_id": event.skill_id, "deleted_at": event.deleted}


def _encode_rating(event: RatingChanged) -> dict[str, Any]:
    return {"skill_id": event.skill_id, "rating": event.rating, **event.figures, "updated_at": event.updated}


def _encode_category(record: CategoryRecord) -> dict[str, Any]:
    return {**_wire_names(record.fields), "name": record.name, "updated_at": record.updated}


def _wire_names(named: Mapping[str, Any]) -> dict[str, Any]:
    return {("created_at" if name == "remote_created_at" else name): value for name, value in named.items()}


SKILL_UPDATE = MessageType(
    name="skill_update",
    event=SkillRecord,
    subject=Subject.SKILL,
    decode=lambda data, sent, doubtful, latest: skill_record(data, doubtful=doubtful, latest=latest),
    encode=_encode_skill,
    announces=Announces.PRESENT,
)
CATEGORY_UPDATE = MessageType(
    name="category_update",
    event=CategoryRecord,
    subject=Subject.CATEGORY,
    decode=lambda data, sent, doubtful, latest: category_record(data, doubtful=doubtful, latest=latest),
    encode=_encode_category,
)
RATING_UPDATE = MessageType(
    name="rating_update",
    event=RatingChanged,
    subject=Subject.SKILL,
    decode=_decode_rating,
    encode=_encode_rating,
)
SKILL_DELETE = MessageType(
    name="skill_delete",
    event=SkillDeleted,
    subject=Subject.SKILL,
    decode=_decode_deletion,
    encode=_encode_deletion,
    announces=Announces.REMOVED,
)

MESSAGE_TYPES = (SKILL_UPDATE, CATEGORY_UPDATE, RATING_UPDATE, SKILL_DELETE)
BY_NAME: Mapping[str, MessageType] = {each.name: each for each in MESSAGE_TYPES}
_BY_EVENT: Mapping[type, MessageType] = {each.event: each for each in MESSAGE_TYPES}

HEARTBEATS: Mapping[str, Heartbeat] = {"ping": Ping(), "pong": Pong()}


def type_of(event: Change) -> MessageType:
    """Return the message type that decodes to this event."""
    return _BY_EVENT[type(event)]


def subject_of(name: str) -> Subject:
    """Return what a refused message is about. One of an unknown type, or of none, may still name a skill."""
    known = BY_NAME.get(name)
    return known.subject if known else Subject.SKILL


def readable_key(name: str, data: Any) -> str | None:
    """Return the key in the `data` of a refused message of type `name`; `None` where none can be read."""
    match subject := subject_of(name):
        case Subject.SKILL:
            return skill_key(data)
        case Subject.CATEGORY:
            return category_key(data)
        case _:
            assert_never(subject)


def repair_of(subject: Subject, key: str | None) -> Repair:
    """Return what repairs the loss of a message about that key; `None`: it could not be read."""
    match subject:
        case Subject.SKILL:
            return Repair.FULL_SYNC if key is None else Repair.FETCH
        case Subject.CATEGORY:  # there is no request for a single category
            return Repair.FULL_SYNC
        case _:
            assert_never(subject)
