"""Changes on their way to clients: encoded once, with what the filters ask of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from marketplace_sync.live.feed import Change
from marketplace_sync.models import FeedChange, Skill

Kind = FeedChange.Kind

CATEGORY_KINDS = frozenset((Kind.CATEGORY_CREATED, Kind.CATEGORY_UPDATED, Kind.CATEGORY_DELETED))
# A message holds more only when a single change does: several client libraries refuse more than 1 MiB.
MAX_MESSAGE_CHARS = 256 * 1024

# A `changes` message, "" for none, and the number that its client is taken to by it, filtered out ones included.
Portion = tuple[str, int]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `text` is its JSON; `categories`: those it is about, `None` when that can't be told."""

    seq: int
    kind: str
    key: str
    categories: frozenset[str] | None
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for; an empty set asks for everything, several sets must all agree."""

    kinds: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    skill_ids: frozenset[str] = frozenset()

    @property
    def all(self) -> bool:
        return not (self.kinds or self.categories or self.skill_ids)

    def includes(self, entry: Entry) -> bool:
        if self.kinds and entry.kind not in self.kinds:
            return False
        if self.skill_ids and (entry.kind in CATEGORY_KINDS or entry.key not in self.skill_ids):
            return False
        return not self.categories or entry.categories is None or not self.categories.isdisjoint(entry.categories)


def entries_of(changes: Sequence[Change]) -> list[Entry]:
    """The same changes, encoded; one query, for the categories of skills that are not told in the change itself.

    A category's follower must not lose a skill that leaves it, and the feed does not say where a skill was before:
    a move and a deletion are about any category. A skill's other changes are about the one it is in now; if it has
    moved since, the move itself stands later in the feed.
    """
    asked = {change.key for change in changes if _silent(change)}
    held = dict(Skill.objects.filter(skill_id__in=asked).values_list("skill_id", "category__name")) if asked else {}
    return [
        Entry(change.seq, change.kind, change.key, _categories(change, held), _encode(change).decode())
        for change in changes
    ]


def portion_of(entries: Iterable[Entry], wanted: Wanted, upto: int) -> Portion:
    """As many of these as one message takes. `upto`: the number that they reach to, all of them."""
    texts: list[str] = []
    size = seen = 0
    for entry in entries:
        if wanted.includes(entry):
            if texts and size + len(entry.text) > MAX_MESSAGE_CHARS:
                return _message(texts), seen
            texts.append(entry.text)
            size += len(entry.text)
        seen = entry.seq
    return (_message(texts) if texts else ""), upto


def _message(texts: list[str]) -> str:
    return f'{{"type":"changes","changes":[{",".join(texts)}]}}'


def _silent(change: Change) -> bool:
    """Is it a skill's, without a word about categories?"""
    return change.kind in (Kind.SKILL_UPDATED, Kind.RATING_CHANGED) and "category" not in change.data


def _categories(change: Change, held: dict[str, str | None]) -> frozenset[str] | None:
    if change.kind in CATEGORY_KINDS:
        return frozenset((change.key,))
    if change.kind == Kind.SKILL_CREATED:
        name = change.data.get("category")
    elif _silent(change) and change.key in held:
        name = held[change.key]
    else:
        return None
    return frozenset((name,)) if name is not None else frozenset()
