"""What the writer is given: events with when and whence they arrived, and refusals on their way to the dead letters."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from marketplace_sync.logs import redact
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.refusals import Refusal

# What a dead letter keeps of the raw bytes (law 6).
HEAD_BYTES = 4096
# The `kind` of a dead letter for a row of the category listing; a row of the skill listing has none.
LISTED_CATEGORY = "category"
# Looked at past that before it is cut, or half a token is left at the end. ATOM_SAAS_API_TOKEN may have 10,000
# characters; written as escapes in a URL each is three.
_LONGEST_SECRET_BYTES = 30_000


@dataclass(frozen=True, slots=True)
class SkillAbsent:
    """The marketplace was asked at the event's arrival, and proved not to have that skill."""

    skill_id: str


@dataclass(frozen=True, slots=True)
class CategoryAbsent:
    """The marketplace lists that category no more. It goes once no skill names it."""

    name: str


Event = Change | SkillAbsent | CategoryAbsent


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """One event for the mirror. `arrival` orders it (see `engine.merge`); `source` is what the feed will say.

    `polled`: asked for by a request, and not told by the stream. `forced`: by a person's wish the
    marketplace's word counts whatever the times say. `run_id`: the pass that brought it, if any.
    `by_row`: the stored row itself is compared with the event, not its fingerprint (law 16). `size`: the bytes of a
    stream message, 0 for anything else.
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
    """Something refused. `head`: the raw bytes without the token, cut at 4 KiB; `size`, `digest`: the whole's."""

    refusal: Refusal
    source: DeadLetter.Source
    head: bytes
    size: int
    digest: str

    @classmethod
    def of(cls, refusal: Refusal, raw: str | bytes, source: DeadLetter.Source) -> "RefusedInput":
        """The letter for `raw` as received; a text frame is kept as its UTF-8 bytes."""
        whole = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
        head = redact_bytes(whole[: HEAD_BYTES + _LONGEST_SECRET_BYTES])[:HEAD_BYTES]
        return cls(refusal, source, head, len(whole), hashlib.sha256(whole).hexdigest())


def redact_bytes(raw: bytes) -> bytes:
    """The raw bytes without the token: a server may echo it (law 14)."""
    text = raw.decode("latin-1")
    hidden = redact(text)
    return raw if hidden == text else hidden.encode("latin-1", "replace")


class Effect(StrEnum):
    """What an item did to the mirror."""

    CREATED = "created"
    UPDATED = "updated"
    REMOVED = "removed"
    UNCHANGED = "unchanged"
    STALE = "stale"
    FETCH = "fetch"  # the skill must be fetched to know
    REFUSED = "refused"


Item = Arrived | RefusedInput
