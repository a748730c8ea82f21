"""Reasons for refusing what the marketplace sent. The codes are public: dead letters, API and metrics use them."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Every reason for a refusal. A value never changes its meaning."""

    TOO_LARGE = "too_large"  # over the message limit (1 MiB)
    BINARY = "binary"  # a binary frame; the protocol is text
    NOT_JSON = "not_json"  # not JSON (NaN and Infinity are not JSON)
    TOO_DEEP = "too_deep"  # nested past MAX_DEPTH
    BAD_TYPE = "bad_type"  # a value of another JSON type than the field's
    MISSING = "missing"  # a required field is absent or null
    BLANK = "blank"  # a required text is empty or white space only
    TOO_LONG = "too_long"  # a text or a list longer than its limit
    BAD_CHARACTER = "bad_character"  # NUL, a lone surrogate or a byte that is not UTF-8: PostgreSQL can't store them
    OUT_OF_RANGE = "out_of_range"  # a number outside its range, or one that no database stores
    BAD_TIME = "bad_time"  # not an ISO 8601 time
    BAD_ID = "bad_id"  # an id that no URL can contain ("." or "..")
    UNKNOWN_TYPE = "unknown_type"  # an envelope `type` that the protocol does not have
    UNSTORABLE = "unstorable"  # the decoder accepted it and the database refused it


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error in one message, row or record, and its place.

    `field` is a dotted path into `data` ("tags[3]"), or "" for the whole.
    `key` is the `skill_id` (or the category's name) where it was readable, else `None`. With it, a single fetch can
    replace a full sync.
    `kind` is the envelope's `type` where that was readable, else "".
    """

    code: Code
    field: str
    reason: str
    key: str | None = None
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.field or 'message'}: {self.reason} ({self.code})"


class DecodeError(ValueError):
    """Raised by the decoders. `refusal` has the reason; the text is the refusal's."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
