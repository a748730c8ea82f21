"""The newest wins: what one event changes in what is stored of that skill or category (laws 2 and 3).

The server's times (`Stamp`) decide the order. If they tie, or one of them is unknown, the later *arrival* wins. An
arrival is an integer that grows with what this mirror received: a stream message arrives when it is read, a listing
row or a fetched skill when its request was sent, because the server may have made it at any moment after. Arrivals have
the lease's epoch in their upper bits (`arrival_number`), so all that an earlier owner received came before.

What is stored of a skill is a `StoredSkill`, a `StoredTombstone`, or `None`. The `merge_*` functions take that and an
event, and return what is stored afterwards with a `MergeOutcome`; they change nothing in place.
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

# 2**40 arrivals per epoch are 300 years of 100 per second; 2**23 epochs are left in a signed 64-bit column.
_ARRIVAL_BITS = 40

# "2026-01-15T10:30:00.123456": what a column of the database stores of a time that decides nothing.
_MICROSECOND_CHARS = 26
_encode = msgspec.json.Encoder(order="deterministic").encode
_all_fields = itemgetter(*SKILL_FIELDS)


def arrival_number(epoch: int, count: int) -> int:
    """Return the arrival of the `count`-th input received under the lease's `epoch`."""
    return (epoch << _ARRIVAL_BITS) | count


class MergeOutcome(StrEnum):
    """The result of merging an event."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    STALE = "stale"
    FETCH = "fetch"  # the event alone is not enough: that skill has to be fetched


class StoredSkill(msgspec.Struct, frozen=True, gc=False):
    """A skill as it is stored. `fields` has all of `SKILL_FIELDS`.

    `updated` and `arrival` order its records; `rated` and `rating_arrival` order its rating figures. `rated` is `None`
    until a time for them is reported.
    """

    fields: Mapping[str, Any]
    extra: Mapping[str, Any]
    updated: Stamp | None
    arrival: int
    rated: Stamp | None
    rating_arrival: int
    known_fingerprint: str | None = None  # `None`: not computed yet, because a batch may still change the skill

    @property
    def fingerprint(self) -> str:
        """Return `fingerprint_of` the skill. If it is not known, each call computes it."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        return fingerprint_of(self.fields, self.extra, self.updated)

    def with_fingerprint(self) -> "StoredSkill":
        """Return the same skill with its fingerprint known."""
        return self if self.known_fingerprint is not None else replace(self, known_fingerprint=self.fingerprint)


class StoredTombstone(msgspec.Struct, frozen=True, gc=False):
    """A removed skill: the server's time of its removal (`None` ties with everything), and the arrival of that news."""

    deleted: Stamp | None
    arrival: int


class StoredCategory(msgspec.Struct, frozen=True, gc=False):
    """A category as it is stored. `fields` has all of `CATEGORY_FIELDS`."""

    fields: Mapping[str, Any]
    updated: Stamp | None
    arrival: int


Slot = StoredSkill | StoredTombstone | None

# A category that is known only because a skill names it: any record of it is newer.
BARE_CATEGORY = StoredCategory(fields=CATEGORY_EMPTY, updated=None, arrival=0)


def newer(incoming: Stamp | None, arrival: int, stored: Stamp | None, stored_arrival: int) -> bool:
    """Return whether the incoming value wins over the stored one. Law 2's order: by time, on a tie by arrival."""
    if incoming is not None and stored is not None and incoming != stored:
        return incoming > stored
    return arrival >= stored_arrival


def fingerprint_of(fields: Mapping[str, Any], extra: Mapping[str, Any], updated: Stamp | None) -> str:
    """Return a digest of all that a complete listing row contains, independent of the order of JSON keys."""
    return blake2b(_encode((_all_fields(fields), extra, updated)), digest_size=16).hexdigest()


def record_fingerprint(record: SkillRecord) -> str | None:
    """Return the fingerprint of a record that has every field; `None` for a short one."""
    if len(record.fields) < len(SKILL_FIELDS):
        return None
    return fingerprint_of(_to_microseconds(record.fields), record.extra, record.updated)


def merge_change(
    slot: Slot, event: SkillChange, arrival: int, *, polled: bool, forced: bool = False, unsound: bool = False
) -> tuple[Slot, MergeOutcome]:
    """Merge a message or a listing row about a skill. The keywords are those of `merge_record`."""
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
    """Merge a record. `polled`: it comes from a listing or a single fetch, and not from the stream.

    `forced`: a person chose to take the record, whatever its time. `unsound`: the stored row contradicts itself, so
    its times decide nothing and the record replaces it.
    """
    match slot:
        case None:
            return _created(record, arrival), MergeOutcome.APPLIED
        case StoredTombstone():
            if forced or newer(record.updated, arrival, slot.deleted, slot.arrival):
                return _created(record, arrival), MergeOutcome.APPLIED
            return slot, MergeOutcome.STALE
        case StoredSkill() if unsound:
            return _replaced(slot, record, arrival), MergeOutcome.APPLIED
        case StoredSkill():
            merged = _merged(slot, record, arrival, polled=polled, forced=forced)
            if merged.updated == slot.updated:
                merged = merged.with_fingerprint()
                if merged.fingerprint == slot.fingerprint:
                    return slot, MergeOutcome.UNCHANGED
            # Other times need no fingerprint, which contains the time and takes longer than all else here.
            if forced or newer(record.updated, arrival, slot.updated, slot.arrival):
                return merged, MergeOutcome.APPLIED
            return slot, MergeOutcome.STALE
        case _:
            assert_never(slot)


def merge_deletion(slot: Slot, event: SkillDeleted, arrival: int) -> tuple[Slot, MergeOutcome]:
    """Merge a removal. A skill that is not stored gets a tombstone too: older news must not create it."""
    match slot:
        case None:
            return StoredTombstone(event.deleted, arrival), MergeOutcome.UNCHANGED
        case StoredTombstone():
            if event.deleted == slot.deleted:
                return slot, MergeOutcome.UNCHANGED
            if newer(event.deleted, arrival, slot.deleted, slot.arrival):
                return StoredTombstone(event.deleted or slot.deleted, arrival), MergeOutcome.UNCHANGED
            return slot, MergeOutcome.STALE
        case StoredSkill():
            if newer(event.deleted, arrival, slot.updated, slot.arrival):
                return StoredTombstone(event.deleted or slot.updated, arrival), MergeOutcome.APPLIED
            return slot, MergeOutcome.STALE
        case _:
            assert_never(slot)


def merge_absence(slot: Slot, arrival: int, *, unsound: bool = False) -> tuple[Slot, MergeOutcome]:
    """Merge a proved absence: the answer to what was requested at `arrival` did not contain the skill.

    News that arrived since then wins. The tombstone has the removed row's own time; if that row is `unsound` (see
    `merge_record`), its time means nothing and the tombstone has none.
    """
    match slot:
        case None | StoredTombstone():
            return slot, MergeOutcome.UNCHANGED
        case StoredSkill() if unsound:
            return StoredTombstone(None, arrival), MergeOutcome.APPLIED
        case StoredSkill():
            if max(slot.arrival, slot.rating_arrival) > arrival:
                return slot, MergeOutcome.STALE
            return StoredTombstone(slot.updated, arrival), MergeOutcome.APPLIED
        case _:
            assert_never(slot)


def merge_rating(slot: Slot, event: RatingChanged, arrival: int) -> tuple[Slot, MergeOutcome]:
    """Merge new rating figures; nothing else of the skill changes."""
    match slot:
        case None:
            return slot, MergeOutcome.FETCH
        case StoredTombstone():
            # A rating later than the removal shows that the skill came back, although no news of that arrived.
            known_dead = event.updated is not None and slot.deleted is not None and event.updated <= slot.deleted
            return slot, MergeOutcome.STALE if known_dead else MergeOutcome.FETCH
        case StoredSkill():
            return _rated(slot, event, arrival)
        case _:
            assert_never(slot)


def merge_category(
    stored: StoredCategory | None, record: CategoryRecord, arrival: int, *, forced: bool = False, unsound: bool = False
) -> tuple[StoredCategory | None, MergeOutcome]:
    """Merge a category. `forced`, `unsound`: see `merge_record`."""
    base = stored or BARE_CATEGORY
    fields = {**base.fields, **_to_microseconds(record.fields)}
    if stored is None or unsound:
        return StoredCategory(fields, record.updated, arrival), MergeOutcome.APPLIED
    merged = StoredCategory(fields, record.updated or base.updated, arrival)
    if merged.fields == stored.fields and merged.updated == stored.updated:
        return stored, MergeOutcome.UNCHANGED
    if forced or newer(record.updated, arrival, stored.updated, stored.arrival):
        return merged, MergeOutcome.APPLIED
    return stored, MergeOutcome.STALE


def _to_microseconds(incoming: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields as the mirror can store them: a finer `created_at` would always differ from its column."""
    created = incoming.get("remote_created_at")
    if created is None or len(created) <= _MICROSECOND_CHARS:
        return incoming
    # The canonical form: no zeros at the end of a fraction, and no fraction of zeros alone.
    return {**incoming, "remote_created_at": Stamp(created[:_MICROSECOND_CHARS].rstrip("0").rstrip("."))}


def _created(record: SkillRecord, arrival: int) -> StoredSkill:
    has_figures = _has_figures(record)
    return StoredSkill(
        fields={**SKILL_EMPTY, **_to_microseconds(record.fields)},
        extra=record.extra,
        updated=record.updated,
        arrival=arrival,
        rated=record.updated if has_figures else None,
        rating_arrival=arrival if has_figures else 0,
    )


def _replaced(slot: StoredSkill, record: SkillRecord, arrival: int) -> StoredSkill:
    """Return the record as a new skill; of the stored skill, keep only the fields that the record leaves out."""
    created = _created(record, arrival)
    return replace(created, fields={**slot.fields, **_to_microseconds(record.fields)})


def _merged(slot: StoredSkill, record: SkillRecord, arrival: int, *, polled: bool, forced: bool) -> StoredSkill:
    fields = {**slot.fields, **_to_microseconds(record.fields)}
    rated, rating_arrival = slot.rated, slot.rating_arrival
    if _has_figures(record):
        if forced or _brings_figures(slot, record.updated, arrival, polled=polled):
            rating_arrival = arrival
            if record.updated is not None and (forced or rated is None or record.updated > rated):
                rated = record.updated
        else:
            fields |= {name: slot.fields[name] for name in RATING_FIELDS}
    extra = {**slot.extra, **record.extra}
    updated = record.updated or slot.updated
    return StoredSkill(fields, extra, updated, arrival, rated, rating_arrival)


def _rated(slot: StoredSkill, event: RatingChanged, arrival: int) -> tuple[Slot, MergeOutcome]:
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


def _has_figures(record: SkillRecord) -> bool:
    return "average_rating" in record.fields or "rating_count" in record.fields


def _brings_figures(slot: StoredSkill, updated: Stamp | None, arrival: int, *, polled: bool) -> bool:
    """Return whether the rating figures that come with a record are newer than those that are stored.

    Their own time decides. Otherwise, a row that was requested after the stored rating arrived contains that rating or
    a newer one, even if the skill's `updated_at` has not changed.
    """
    if newer(updated, arrival, slot.rated, slot.rating_arrival):
        return True
    return polled and arrival > slot.rating_arrival
