"""Find the skills and categories of the mirror that a listing did not name."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Exists, OuterRef

from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.mirror.soundness import latest_arrival
from marketplace_sync.models import Category, DismissedRemoval, FeedChange, LeaseRow, Skill

# Skills per statement; SQLite returns them as one value. Row by row, its driver takes the interpreter's lock each time:
# beside a busy event loop that took 3 s per 10,000 skills instead of 0.06, and meanwhile no state is written.
_CHUNK = 2000
_SOME_SKILLS = (
    f"(SELECT id, skill_id, arrival, rating_arrival FROM {Skill._meta.db_table} WHERE id > %s "
    "ORDER BY id LIMIT %s) AS chunk"
)


_BUCKETS = 8192


class SeenIds:
    """The ids that a listing named, as Python's 64-bit hashes: 2 MiB per 100,000 ids, however long an id is.

    Two ids with equal hashes (probability 1 in 10**9 for 100,000 skills) would let a removed skill stay; they never
    remove one. The hashes differ from process to process, so no server can choose ids that collide.

    Arrays keep the hashes, by bucket. A `set` of them takes 8 MiB: with it a daemon of 100,000 skills needed 26 MiB
    more at its peak than one of 1,000, and 20 are the limit (`bench/report.py`).
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, skill_id: object) -> bool:
        digest = hash(skill_id)
        return digest in self._buckets[digest % _BUCKETS]

    def add(self, skill_id: str) -> bool:
        """Add an id; return whether it is new."""
        digest = hash(skill_id)
        bucket = self._buckets[digest % _BUCKETS]
        if digest in bucket:
            return False
        bucket.append(digest)
        self._count += 1
        return True

    def add_all(self, skill_ids: Iterable[str]) -> int:
        """Add ids; return how many of them are new."""
        return sum(map(self.add, skill_ids))


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A sync run that has begun. `feed_seq`: the newest feed number at its beginning.

    `by_row`: it compares the stored rows themselves with the listing (law 16).
    """

    id: int
    feed_seq: int
    by_row: bool = False


def absent_skills(seen: SeenIds, begun: int, found_by: BegunRun | None = None) -> tuple[dict[str, int], int]:
    """Return the skills that are not in `seen` and were not reported since arrival `begun`; and the mirror's size.

    Each skill comes with the arrival of its last report. An arrival that no daemon can have given yet is ignored.
    `found_by`: the sync run, if it found every skill of `seen` in the mirror when it planned its batches; else `None`.
    """
    if found_by is not None and _has_no_more(len(seen), found_by):
        return {}, len(seen)
    latest = latest_arrival()
    absent = {}
    size = last = 0
    dialect().keep_few_pages()
    columns = ("id", "skill_id", "arrival", "rating_arrival")
    while some := list(dialect().select_rows(columns, _SOME_SKILLS, (last, _CHUNK))):
        size += len(some)
        for key, skill_id, arrival, rating_arrival in some:
            last = max(last, key)
            reported = max(arrival, rating_arrival)
            if skill_id not in seen and (reported <= begun or reported >= latest):
                absent[skill_id] = min(reported, begun)
    return absent, size


def dismissed_skills() -> frozenset[str]:
    """Return the skills that are kept although they are not listed, because their removal was dismissed."""
    return frozenset(DismissedRemoval.objects.values_list("skill_id", flat=True))


# One statement, so both counts are of the same moment.
_SKILLS_AND_CHANGES_BY_OTHERS = f"""
    SELECT (SELECT count(*) FROM {Skill._meta.db_table}),
        feed_seq - %s - (SELECT count(*) FROM {FeedChange._meta.db_table} WHERE run_id = %s)
    FROM {LeaseRow._meta.db_table} WHERE id = 1
"""


def _has_no_more(skills: int, found_by: BegunRun) -> bool:
    """Return whether the mirror has exactly the skills that the sync run found, judged by counts alone.

    That is so if the numbers of skills are equal, and if only this run has changed the mirror since it began. Any other
    change, such as the removal of a skill that an earlier batch found, has taken a feed number.
    """
    ((size, by_others),) = dialect().select(_SKILLS_AND_CHANGES_BY_OTHERS, (found_by.feed_seq, found_by.id))
    return bool(size == skills and by_others == 0)


def absent_categories(listed: Iterable[str], begun: int) -> list[str]:
    """Return the categories that no listing and no skill names, and that were not reported since arrival `begun`."""
    # One index lookup per category; with a join PostgreSQL would read all skills.
    unnamed = Category.objects.filter(~Exists(Skill.objects.filter(category=OuterRef("pk"))), arrival__lte=begun)
    return sorted(set(unnamed.values_list("name", flat=True)) - set(listed))
