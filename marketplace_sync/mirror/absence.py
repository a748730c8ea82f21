"""Which skills and categories of the mirror a listing did not name."""

import hashlib
from collections.abc import Iterable

from marketplace_sync.models import Category, Skill

_CHUNK = 2000


class SeenIds:
    """The ids that a listing named, as 64-bit digests: 8 bytes of fact in some 70 of memory, however long an id is.

    Two ids with one digest (1 in 10**9 for 100,000 skills) would let a removed skill stay; never the
    other way round.
    """

    def __init__(self) -> None:
        self._digests: set[int] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, skill_id: object) -> bool:
        return isinstance(skill_id, str) and _digest(skill_id) in self._digests

    def add(self, skill_id: str) -> bool:
        """Was it new?"""
        before = len(self._digests)
        self._digests.add(_digest(skill_id))
        return len(self._digests) > before


def _digest(skill_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(skill_id.encode(), digest_size=8).digest(), "big")


def absent_skills(seen: SeenIds, begun: int) -> tuple[dict[str, int], int]:
    """Skills that are not in `seen` and of which nothing was heard since arrival `begun`; and how many the mirror has.

    Each with the arrival of the last that was heard of it.
    """
    absent = {}
    size = 0
    rows = Skill.objects.order_by("pk").values_list("skill_id", "arrival", "rating_arrival")
    for skill_id, arrival, rating_arrival in rows.iterator(chunk_size=_CHUNK):
        size += 1
        heard = max(arrival, rating_arrival)
        if skill_id not in seen and heard <= begun:
            absent[skill_id] = heard
    return absent, size


def absent_categories(listed: Iterable[str], begun: int) -> list[str]:
    """Categories that no listing names, no skill names, and of which nothing was heard since arrival `begun`."""
    unnamed = Category.objects.filter(skills__isnull=True, arrival__lte=begun)
    return sorted(set(unnamed.values_list("name", flat=True)) - set(listed))
