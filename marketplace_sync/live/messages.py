"""`changes` messages for clients: changes are encoded once, filtered per client, and packed up to a limit of size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from marketplace_sync.live.feed import Change
from marketplace_sync.models import FeedChange, Skill

Kind = FeedChange.Kind

CATEGORY_KINDS = frozenset((Kind.CATEGORY_CREATED, Kind.CATEGORY_UPDATED, Kind.CATEGORY_DELETED))
# Several client libraries refuse more than 1 MiB. A message exceeds this limit only if a single change does.
MAX_MESSAGE_CHARS = 256 * 1024

_encode = msgspec.json.Encoder().encode


class ChangesMessage(NamedTuple):
    """The next message for a client. `text` is "" if no change passed the filter.

    `upto` is the feed number that the client has reached with it, changes that were filtered out included.
    """

    text: str
    upto: int


@dataclass(frozen=True, slots=True)
class EncodedChange:
    """One change. `text` is its JSON; `categories` are those it concerns, `None` if that is unknown."""

    seq: int
    kind: str
    key: str
    categories: frozenset[str] | None
    text: str


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """The changes a client wants. An empty set admits every change; a change must be admitted by all three sets."""

    kinds: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    skill_ids: frozenset[str] = frozenset()

    @property
    def admits_all(self) -> bool:
        return not (self.kinds or self.categories or self.skill_ids)

    def admits(self, change: EncodedChange) -> bool:
        if self.kinds and change.kind not in self.kinds:
            return False
        if self.skill_ids and (change.kind in CATEGORY_KINDS or change.key not in self.skill_ids):
            return False
        return not self.categories or change.categories is None or not self.categories.isdisjoint(change.categories)


def encode_changes(changes: Sequence[Change]) -> list[EncodedChange]:
    """Encode the changes. At most one query finds the categories of skills whose change does not name one.

    A client that filters by category must not miss a skill that leaves it, and the feed does not record where a skill
    was before: a move and a removal count for every category. Any other change of a skill counts for the category it
    is in now; if the skill has moved since, the move itself follows later in the feed.
    """
    unnamed = {change.key for change in changes if _names_no_category(change)}
    stored: dict[str, str | None] = {}
    if unnamed:
        stored = dict(Skill.objects.filter(skill_id__in=unnamed).values_list("skill_id", "category__name"))
    return [
        EncodedChange(change.seq, change.kind, change.key, _categories(change, stored), _encode(change).decode())
        for change in changes
    ]


def next_message(changes: Iterable[EncodedChange], feed_filter: FeedFilter, upto: int) -> ChangesMessage:
    """Return as many of these changes as fit into one message. `upto` is the number that all of them reach."""
    texts: list[str] = []
    size = reached = 0
    for change in changes:
        if feed_filter.admits(change):
            if texts and size + len(change.text) > MAX_MESSAGE_CHARS:
                return ChangesMessage(_message(texts), reached)
            texts.append(change.text)
            size += len(change.text)
        reached = change.seq
    return ChangesMessage(_message(texts) if texts else "", upto)


def _message(texts: list[str]) -> str:
    return f'{{"type":"changes","changes":[{",".join(texts)}]}}'


def _names_no_category(change: Change) -> bool:
    """Return whether this changes a skill in its place, so that its data contains no category."""
    return change.kind in (Kind.SKILL_UPDATED, Kind.RATING_CHANGED) and "category" not in change.data


def _categories(change: Change, stored: dict[str, str | None]) -> frozenset[str] | None:
    if change.kind in CATEGORY_KINDS:
        return frozenset((change.key,))
    if change.kind == Kind.SKILL_CREATED:
        name = change.data.get("category")
    elif _names_no_category(change) and change.key in stored:
        name = stored[change.key]
    else:
        return None
    return frozenset((name,)) if name is not None else frozenset()
