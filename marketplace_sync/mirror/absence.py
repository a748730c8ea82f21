"""Which skills and categories of the mirror a listing did not name."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Exists, OuterRef

from marketplace_sync.mirror.soundness import latest_arrival
from marketplace_sync.mirror.sql import keep_few_pages, rows, select
from marketplace_sync.models import Category, DismissedRemoval, FeedChange, LeaseRow, Skill

# Skills read in one statement, which SQLite gives as one value. Row by row it asks for the interpreter's lock each
# time: beside a busy event loop that took 3 s for 10,000 skills instead of 0.06, and meanwhile no state is written.
_CHUNK = 2000
_SOME_SKILLS = (
    f"(SELECT id, skill_id, arrival, rating_arrival FROM {Skill._meta.db_table} WHERE id > %s "
    "ORDER BY id LIMIT %s) AS chunk"
)
_FEWEST_PLACES = 2048


class SeenIds:
    """The ids that a listing named, as Python's 64-bit hashes of them: 16 to 32 bytes each, however long an id is.

    Two ids with one hash (1 in 10**9 for 100,000 skills) would let a removed skill stay; never the other way round.
    The hashes differ from process to process, so no server can choose ids that meet.

    A table that is at most half full, each hash in the first free place from where it belongs: 100,000 take 2 MiB,
    where a `set` of them takes 9.
    """

    def __init__(self) -> None:
        self._count = 0
        self._table = array("q", bytes(8 * _FEWEST_PLACES))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, skill_id: object) -> bool:
        return self._table[self._place(hash(skill_id) or 1)] != 0

    def add(self, skill_id: str) -> bool:
        """Was it new?"""
        digest = hash(skill_id) or 1  # 0 is a free place
        place = self._place(digest)
        if self._table[place]:
            return False
        self._table[place] = digest
        self._count += 1
        if 2 * self._count > len(self._table):
            self._grow()
        return True

    def add_all(self, skill_ids: Iterable[str]) -> int:
        """How many of them were new?"""
        return sum(map(self.add, skill_ids))

    def _place(self, digest: int) -> int:
        """Where it is, or the free place where it would be."""
        table = self._table
        last = len(table) - 1
        place = digest & last
        while (held := table[place]) and held != digest:
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        old = self._table
        self._table = array("q", bytes(2 * old.itemsize * len(old)))
        for digest in old:
            if digest:
                self._table[self._place(digest)] = digest


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A pass under way. `feed_seq`: the last feed number given before it began.

    `by_row`: it compares the stored rows themselves with the listing (law 16).
    """

    id: int
    feed_seq: int
    by_row: bool = False


def absent_skills(seen: SeenIds, begun: int, found_by: BegunRun | None = None) -> tuple[dict[str, int], int]:
    """Skills that are not in `seen` and of which nothing was heard since arrival `begun`; and how many the mirror has.

    Each with the arrival of the last that was heard of it. One that cannot have been given yet says nothing.
    `found_by`: the pass that saw each of `seen` in the mirror, when the batch that had its row was planned.
    """
    if found_by is not None and _has_no_more(len(seen), found_by):
        return {}, len(seen)
    latest = latest_arrival()
    absent = {}
    size = last = 0
    keep_few_pages()
    columns = ("id", "skill_id", "arrival", "rating_arrival")
    while some := list(rows(columns, _SOME_SKILLS, (last, _CHUNK))):
        size += len(some)
        for key, skill_id, arrival, rating_arrival in some:
            last = max(last, key)
            heard = max(arrival, rating_arrival)
            if skill_id not in seen and (heard <= begun or heard >= latest):
                absent[skill_id] = min(heard, begun)
    return absent, size


def dismissed_skills() -> frozenset[str]:
    """Return the skills that are kept although they are not listed, for somebody dismissed their removal."""
    return frozenset(DismissedRemoval.objects.values_list("skill_id", flat=True))


# One statement, and so one moment.
_SKILLS_AND_CHANGES_BY_OTHERS = f"""
    SELECT (SELECT count(*) FROM {Skill._meta.db_table}),
        feed_seq - %s - (SELECT count(*) FROM {FeedChange._meta.db_table} WHERE run_id = %s)
    FROM {LeaseRow._meta.db_table} WHERE id = 1
"""


def _has_no_more(skills: int, found_by: BegunRun) -> bool:
    """Has the mirror just these? Counted: so it is where it has as many, and nobody but the pass that saw them there
    has changed anything since that began: a skill that was there after one batch and goes with a later one takes a
    feed number.
    """
    ((size, by_others),) = select(_SKILLS_AND_CHANGES_BY_OTHERS, (found_by.feed_seq, found_by.id))
    return bool(size == skills and by_others == 0)


def absent_categories(listed: Iterable[str], begun: int) -> list[str]:
    """Categories that no listing names, no skill names, and of which nothing was heard since arrival `begun`."""
    # By the category, one look into an index each: joined to its skills PostgreSQL reads all of them.
    unnamed = Category.objects.filter(~Exists(Skill.objects.filter(category=OuterRef("pk"))), arrival__lte=begun)
    return sorted(set(unnamed.values_list("name", flat=True)) - set(listed))
