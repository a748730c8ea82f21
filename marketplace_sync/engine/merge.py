"""The newest wins: what one event does to what the mirror holds of that skill or category (laws 2 and 3).

Order is decided by the server's times (`Stamp`). Where they tie, or one of them is unknown, the
later *arrival* wins. An arrival is an integer that grows with what this mirror received: a stream
message arrives when it is read, a listing row or a fetched skill when its request was put on the
wire, since the server may have made it up at any moment after. Arrivals carry the lease's epoch in
their upper bits (`arrival_number`), so all that an earlier owner received came before.

What the mirror holds of a skill is a `StoredSkill`, a `StoredTombstone`, or `None`. `merge_*` functions take
that and an event and give what is held afterwards with an `MergeOutcome`; they change nothing in place.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from operator import itemgetter
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from marketplace_sync.protocol.events import (
    CATEGORY_EMPTY,
    RATING_FIELDS,
    SKILL_EMPTY,
    SKILL_FIELDS,
    CategoryRecord,
    RatingChanged,
    SkillChange,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.stamps import Stamp

# 2**40 arrivals an epoch are 300 years of 100 a second; 2**23 epochs are left in a signed 64-bit column.
_ARRIVAL_BITS = 40

# "2026-01-15T10:30:00.123456": what a column of the database keeps of a time that decides nothing.
_MICROSECOND_CHARS = 26
_encode = msgspec.json.Encoder(order="deterministic").encode
_told_fields = itemgetter(*SKILL_FIELDS)


def arrival_number(epoch: int, count: int) -> int:
    """The arrival of the `count`-th thing received under the lease's `epoch`."""
    return (epoch << _ARRIVAL_BITS) | count


class MergeOutcome(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    STALE = "stale"
    FETCH = "fetch"  # the event alone does not say enough: that skill has to be fetched


class StoredSkill(msgspec.Struct, frozen=True, gc=False):
    """A skill as held. `fields` has all of `SKILL_FIELDS`.

    `updated` and `arrival` are the record's clock; `rated` and `rating_arrival` that of its rating
    figures, `rated` `None` while nobody told a time for them.
    """

    fields: Mapping[str, Any]
    extra: Mapping[str, Any]
    updated: Stamp | None
    arrival: int
    rated: Stamp | None
    rating_arrival: int
    known_fingerprint: str | None = None  # `None`: not made yet, of what a batch may still change

    @property
    def fingerprint(self) -> str:
        """`fingerprint_of` it, made anew at each look where it is not known."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        return fingerprint_of(self.fields, self.extra, self.updated)

    def with_fingerprint(self) -> "StoredSkill":
        """The same, with its fingerprint known."""
        return self if self.known_fingerprint is not None else replace(self, known_fingerprint=self.fingerprint)


class StoredTombstone(msgspec.Struct, frozen=True, gc=False):
    """A removed skill: when the server says it went (`None`: ties with everything), and that word's arrival."""

    deleted: Stamp | None
    arrival: int


class StoredCategory(msgspec.Struct, frozen=True, gc=False):
    """A category as held. `fields` has all of `CATEGORY_FIELDS`."""

    fields: Mapping[str, Any]
    updated: Stamp | None
    arrival: int


Slot = StoredSkill | StoredTombstone | None

# A category that only a skill has named: whatever is told of it is newer.
BARE_CATEGORY = StoredCategory(fields=CATEGORY_EMPTY, updated=None, arrival=0)


def newer(told: Stamp | None, arrival: int, held: Stamp | None, stored_arrival: int) -> bool:
    """Does what was told win over what is held? Law 2's order: by time, on a tie by arrival."""
    if told is not None and held is not None and told != held:
        return told > held
    return arrival >= stored_arrival


def fingerprint_of(fields: Mapping[str, Any], extra: Mapping[str, Any], updated: Stamp | None) -> str:
    """A digest of all that a complete listing row tells, independent of the order of JSON keys."""
    return blake2b(_encode((_told_fields(fields), extra, updated)), digest_size=16).hexdigest()


def record_fingerprint(record: SkillRecord) -> str | None:
    """The fingerprint of a record that tells every field; `None` for a short one."""
    if len(record.fields) < len(SKILL_FIELDS):
        return None
    return fingerprint_of(_to_microseconds(record.fields), record.extra, record.updated)


def merge_change(
    slot: Slot, event: SkillChange, arrival: int, *, polled: bool, forced: bool = False, unsound: bool = False
) -> tuple[Slot, MergeOutcome]:
    """Apply a message or a listing row about a skill to its slot. The keywords are those of `merge_record`."""
    match event:
        case SkillRecord():
            return merge_record(slot, event, arrival, polled=polled, forced=forced, unsound=unsound)
        case SkillDeleted():
            return merge_deletion(slot, event, arrival)
        case RatingChanged():
            return merge_rating(slot, event, arrival)
        case _:
            assert_never(event)


def merge_record(
    slot: Slot, record: SkillRecord, arrival: int, *, polled: bool, forced: bool = False, unsound: bool = False
) -> tuple[Slot, MergeOutcome]:
    """A record was told. `polled`: by a listing or a single fetch, not by the stream.

    `forced`: a person asked for the marketplace's word to be taken, whatever the times say. `unsound`: the stored row
    contradicts itself, so its times decide nothing and the record replaces it.
    """
    match slot:
        case None:
            return _created(record, arrival), MergeOutcome.APPLIED
        case StoredTombstone():
            if forced or newer(record.updated, arrival, slot.deleted, slot.arrival):
                return _created(record, arrival), MergeOutcome.APPLIED
            return slot, MergeOutcome.STALE
    if unsound:
        return _replaced(slot, record, arrival), MergeOutcome.APPLIED
    merged = _merged(slot, record, arrival, polled=polled, forced=forced)
    # The fingerprint has the time in it, and takes longer than all else here.
    if merged.updated == slot.updated:
        merged = merged.with_fingerprint()
        if merged.fingerprint == slot.fingerprint:
            return slot, MergeOutcome.UNCHANGED
    if forced or newer(record.updated, arrival, slot.updated, slot.arrival):
        return merged, MergeOutcome.APPLIED
    return slot, MergeOutcome.STALE


def merge_deletion(slot: Slot, event: SkillDeleted, arrival: int) -> tuple[Slot, MergeOutcome]:
    """The skill was told to be gone. One that is not held leaves a grave all the same: older news must not make it."""
    match slot:
        case None:
            return StoredTombstone(event.deleted, arrival), MergeOutcome.UNCHANGED
        case StoredTombstone():
            if event.deleted == slot.deleted:
                return slot, MergeOutcome.UNCHANGED
            if newer(event.deleted, arrival, slot.deleted, slot.arrival):
                return StoredTombstone(event.deleted or slot.deleted, arrival), MergeOutcome.UNCHANGED
            return slot, MergeOutcome.STALE
    if newer(event.deleted, arrival, slot.updated, slot.arrival):
        return StoredTombstone(event.deleted or slot.updated, arrival), MergeOutcome.APPLIED
    return slot, MergeOutcome.STALE


def merge_absence(slot: Slot, arrival: int, *, unsound: bool = False) -> tuple[Slot, MergeOutcome]:
    """The skill is proved to be gone: what was asked for at `arrival` did not hold it.

    What was heard of it since counts for more. The grave has the removed row's own time; `unsound`: it has none that
    means anything (see `merge_record`).
    """
    match slot:
        case StoredSkill() if unsound:
            return StoredTombstone(None, arrival), MergeOutcome.APPLIED
        case StoredSkill():
            if max(slot.arrival, slot.rating_arrival) > arrival:
                return slot, MergeOutcome.STALE
            return StoredTombstone(slot.updated, arrival), MergeOutcome.APPLIED
    return slot, MergeOutcome.UNCHANGED


def merge_rating(slot: Slot, event: RatingChanged, arrival: int) -> tuple[Slot, MergeOutcome]:
    """The skill's rating figures changed; nothing else is touched."""
    match slot:
        case None:
            return slot, MergeOutcome.FETCH
        case StoredTombstone():
            # A rating later than the delete tells of a skill that came back without our hearing of it.
            known_dead = event.updated is not None and slot.deleted is not None and event.updated <= slot.deleted
            return slot, MergeOutcome.STALE if known_dead else MergeOutcome.FETCH
    if not newer(event.updated, arrival, slot.rated, slot.rating_arrival):
        return slot, MergeOutcome.STALE
    if "average_rating" not in event.figures:
        return slot, MergeOutcome.FETCH
    fields = {**slot.fields, **event.figures}
    rated = event.updated or slot.rated
    merged = replace(slot, fields=fields, rated=rated, rating_arrival=arrival, known_fingerprint=None)
    if rated == slot.rated:
        merged = merged.with_fingerprint()
        if merged.fingerprint == slot.fingerprint:
            return slot, MergeOutcome.UNCHANGED
    return merged, MergeOutcome.APPLIED


def merge_category(
    held: StoredCategory | None, record: CategoryRecord, arrival: int, *, forced: bool = False, unsound: bool = False
) -> tuple[StoredCategory | None, MergeOutcome]:
    """A category was told. `forced`, `unsound`: see `merge_record`."""
    base = held or BARE_CATEGORY
    fields = {**base.fields, **_to_microseconds(record.fields)}
    if held is None or unsound:
        return StoredCategory(fields, record.updated, arrival), MergeOutcome.APPLIED
    merged = StoredCategory(fields, record.updated or base.updated, arrival)
    if merged.fields == held.fields and merged.updated == held.updated:
        return held, MergeOutcome.UNCHANGED
    if forced or newer(record.updated, arrival, held.updated, held.arrival):
        return merged, MergeOutcome.APPLIED
    return held, MergeOutcome.STALE


def _to_microseconds(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Told fields as the mirror can hold them: a finer `created_at` would differ from its column for ever."""
    created = told.get("remote_created_at")
    if created is None or len(created) <= _MICROSECOND_CHARS:
        return told
    # The canonical form: no zeros at the end of a fraction, and no fraction of zeros alone.
    return {**told, "remote_created_at": Stamp(created[:_MICROSECOND_CHARS].rstrip("0").rstrip("."))}


def _created(record: SkillRecord, arrival: int) -> StoredSkill:
    fields = {**SKILL_EMPTY, **_to_microseconds(record.fields)}
    told_rating = _tells_figures(record)
    return StoredSkill(
        fields=fields,
        extra=record.extra,
        updated=record.updated,
        arrival=arrival,
        rated=record.updated if told_rating else None,
        rating_arrival=arrival if told_rating else 0,
    )


def _replaced(slot: StoredSkill, record: SkillRecord, arrival: int) -> StoredSkill:
    """The record as a new row has it; only fields that the record leaves out stay as they are stored."""
    created = _created(record, arrival)
    return replace(created, fields={**slot.fields, **_to_microseconds(record.fields)})


def _merged(slot: StoredSkill, record: SkillRecord, arrival: int, *, polled: bool, forced: bool) -> StoredSkill:
    fields = {**slot.fields, **_to_microseconds(record.fields)}
    rated, rating_arrival = slot.rated, slot.rating_arrival
    if _tells_figures(record):
        if forced or _brings_figures(slot, record.updated, arrival, polled=polled):
            rating_arrival = arrival
            if record.updated is not None and (forced or rated is None or record.updated > rated):
                rated = record.updated
        else:
            fields |= {name: slot.fields[name] for name in RATING_FIELDS}
    extra = {**slot.extra, **record.extra}
    updated = record.updated or slot.updated
    return StoredSkill(fields, extra, updated, arrival, rated, rating_arrival)


def _tells_figures(record: SkillRecord) -> bool:
    return "average_rating" in record.fields or "rating_count" in record.fields


def _brings_figures(slot: StoredSkill, updated: Stamp | None, arrival: int, *, polled: bool) -> bool:
    """Are the rating figures that come with a record newer than those held?

    By their own clock; and a row that was requested after the rating came has seen that rating,
    though the skill's `updated_at` need not have moved with it.
    """
    if newer(updated, arrival, slot.rated, slot.rating_arrival):
        return True
    return polled and arrival > slot.rating_arrival
