"""The typed, frozen events that all other packages work on. Only `protocol` reads the marketplace's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.protocol.stamps import Stamp

# The fields that a skill record may have, by the names of the mirror. A record has only those that the server sent: an
# absent field leaves the stored value, a null is the field's empty value.
SKILL_FIELDS = (
    "name", "description", "version", "code", "command", "python_packages", "npm_packages", "tags",
    "metadata", "category", "average_rating", "rating_count", "remote_created_at",
)  # fmt: skip
# What a null, or a field that was never sent, is in the mirror.
SKILL_EMPTY: Mapping[str, Any] = {
    "name": "", "description": "", "version": "", "code": "", "command": "", "python_packages": [],
    "npm_packages": [], "tags": [], "metadata": {}, "category": None, "average_rating": None,
    "rating_count": 0, "remote_created_at": None,
}  # fmt: skip
RATING_FIELDS = ("average_rating", "rating_count")

CATEGORY_FIELDS = ("description", "icon_url", "skill_count", "remote_created_at")
CATEGORY_EMPTY: Mapping[str, Any] = {
    "description": "", "icon_url": "", "skill_count": 0, "remote_created_at": None,
}  # fmt: skip


class SkillRecord(msgspec.Struct, frozen=True, gc=False):
    """A skill as a `skill_update`, a listing row or a single fetch reports it.

    `fields` has a subset of `SKILL_FIELDS`: text as `str`, packages and tags as `list[str]`,
    `metadata` a `dict`, `category` its name or `None`, `average_rating` a `float` 0 to 5 or `None`,
    `rating_count` an `int`, `remote_created_at` a `Stamp` or `None`.
    `extra` has the fields that the protocol does not know, as they were sent.
    `updated` is the server's `updated_at`; `None` where it sent none, or one too far ahead to believe.
    """

    skill_id: str
    fields: Mapping[str, Any]
    extra: Mapping[str, Any]
    updated: Stamp | None


class SkillDeleted(msgspec.Struct, frozen=True, gc=False):
    """The skill was removed. `deleted`: the server's `deleted_at`, else the envelope's time, else `None`."""

    skill_id: str
    deleted: Stamp | None


class RatingChanged(msgspec.Struct, frozen=True, gc=False):
    """The skill's rating figures changed; nothing else did.

    `rating` is one person's vote, 1 to 5. `figures` has `average_rating` (`float` or `None`) and
    `rating_count` (`int`) where the message has them; without `average_rating` the skill has to be fetched.
    `updated`: the server's `updated_at` or `None`.
    """

    skill_id: str
    rating: int
    figures: Mapping[str, Any]
    updated: Stamp | None


class CategoryRecord(msgspec.Struct, frozen=True, gc=False):
    """A category as a `category_update` or the listing reports it. `fields`: a subset of `CATEGORY_FIELDS`."""

    name: str
    fields: Mapping[str, Any]
    updated: Stamp | None


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer checks whether we are alive; the answer is a pong."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a ping of ours."""


SkillChange = SkillRecord | SkillDeleted | RatingChanged
Change = SkillChange | CategoryRecord
Heartbeat = Ping | Pong


def reported_at(change: Change) -> Stamp | None:
    """Return the marketplace's time of a change; `None` where it sent none, or one too far ahead to believe."""
    match change:
        case SkillDeleted():
            return change.deleted
        case SkillRecord() | RatingChanged() | CategoryRecord():
            return change.updated
        case _:
            assert_never(change)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A listing row that could not be decoded. `refusal.key` is its id or name where that was readable."""

    refusal: Refusal
    raw: bytes  # the row alone, encoded again


@dataclass(frozen=True, slots=True)
class SkillPage:
    """One page of the skill listing. Totals are `None` where the server sends none.

    `page_size` is what the server reports to have used. `rows` counts every element, refused ones included.
    """

    skills: tuple[SkillRecord, ...]
    refused: tuple[RefusedRow, ...]
    rows: int
    page: int | None
    page_size: int | None
    total: int | None
    total_pages: int | None


@dataclass(frozen=True, slots=True)
class CategoryPage:
    """The whole category listing."""

    categories: tuple[CategoryRecord, ...]
    refused: tuple[RefusedRow, ...]
