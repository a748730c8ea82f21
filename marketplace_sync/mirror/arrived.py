"""The items of a batch: events with their arrival and source, and refused input on its way to the dead letters."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from marketplace_sync.logs import redact
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.refusals import Refusal

# How many of the raw bytes a dead letter keeps (law 6).
HEAD_BYTES = 4096
# The `kind` of a dead letter for a row of the category listing; a row of the skill listing has none.
LISTED_CATEGORY = "category"
# So many more bytes are redacted before the cut, or half a token could be left at the end. ATOM_SAAS_API_TOKEN may have
# 10,000 characters; escaped in a URL, each is three.
_LONGEST_SECRET_BYTES = 30_000


@dataclass(frozen=True, slots=True)
class SkillAbsent:
    """The marketplace does not have that skill: a request sent at the event's arrival proves it."""

    skill_id: str


@dataclass(frozen=True, slots=True)
class CategoryAbsent:
    """The marketplace no longer lists that category. It is removed once no skill is in it."""

    name: str


Event = Change | SkillAbsent | CategoryAbsent


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """One event for the mirror: the envelope that it has from the socket or the request to the apply.

    `arrival` orders it (see `engine.merge`); `source` is what the feed reports. `polled`: it answers a request, and is
    no stream message. `forced`: a person chose the marketplace's values, whatever their times are. `run_id`: the full
    sync that brought it, if any. `by_row`: compare it with the stored row itself, not with its fingerprint (law 16).
    `size`: the bytes of a stream message, 0 for anything else.
    """

    event: Event
    arrival: int
    source: FeedChange.Source
    polled: bool = False
    forced: bool = False
    run_id: int | None = None
    by_row: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class RefusedInput:
    """Input that was refused. `head`: its first 4 KiB, without the token; `size`, `digest`: those of all its bytes."""

    refusal: Refusal
    source: DeadLetter.Source
    head: bytes
    size: int
    digest: str

    @classmethod
    def of(cls, refusal: Refusal, raw: str | bytes, source: DeadLetter.Source) -> "RefusedInput":
        """Return the dead letter of `raw` as received; a text is kept as its UTF-8 bytes."""
        whole = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        head = redact_bytes(whole[: HEAD_BYTES + _LONGEST_SECRET_BYTES])[:HEAD_BYTES]
        return cls(refusal, source, head, len(whole), hashlib.sha256(whole).hexdigest())


def redact_bytes(raw: bytes) -> bytes:
    """Return the raw bytes without the token, which a server may echo (law 14)."""
    text = raw.decode("latin-1")
    hidden = redact(text)
    return raw if hidden == text else hidden.encode("latin-1", "replace")


class Effect(StrEnum):
    """The effect of an item on the mirror."""

    CREATED = "created"
    UPDATED = "updated"
    REMOVED = "removed"
    UNCHANGED = "unchanged"
    STALE = "stale"
    FETCH = "fetch"  # the skill must be fetched to know
    REFUSED = "refused"


Item = Arrived | RefusedInput
