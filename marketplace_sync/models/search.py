"""Search for skills, with an index on both databases (migrations 0003 and 0010): fast among 100,000 skills.

A search consists of words. Each must be the beginning of a word in the skill's name, description or tags; case does not
matter. `send mail` finds "Mailer: sends" but not "e-mail". A word of one character must be a whole word there (`x-ray`
finds "X ray"): too many words begin with one character to look for all of them.
"""

import json
import re
import unicodedata
from typing import Any, Self

from django.db import connection, models
from django.db.models.expressions import RawSQL

# Letters and digits of any language. All else separates words, also the underscore.
_WORD = re.compile(r"[^\W_]+")

MAX_CHARS = 200
MAX_WORDS = 8

_FOUND = {
    "postgresql": "marketplace_sync_skill.id IN "
    "(SELECT skill FROM marketplace_sync_skill_words WHERE words @@ to_tsquery('pg_catalog.simple', %s))",
    # The + keeps SQLite from reading every skill found and sorting them. It follows the ordering's index instead and
    # checks each skill against the search: 80 ms instead of 840 for a common word (100,000 skills).
    "sqlite": "+marketplace_sync_skill.id IN "
    "(SELECT rowid FROM marketplace_sync_skill_words WHERE marketplace_sync_skill_words MATCH %s)",
}
_TAGGED = {
    "postgresql": "marketplace_sync_skill.id IN "
    "(SELECT skill FROM marketplace_sync_skill_words WHERE tags @> %s::jsonb)",
    "sqlite": "+marketplace_sync_skill.id IN (SELECT skill FROM marketplace_sync_skill_tag WHERE tag = %s)",
}
# Counts in the index alone, if there is no other condition (SQLite: 20 ms instead of 160).
_COUNTED = {
    _FOUND["postgresql"]: "SELECT count(*) FROM marketplace_sync_skill_words "
    "WHERE words @@ to_tsquery('pg_catalog.simple', %s)",
    _FOUND["sqlite"]: "SELECT count(*) FROM marketplace_sync_skill_words WHERE marketplace_sync_skill_words MATCH %s",
    _TAGGED["postgresql"]: "SELECT count(*) FROM marketplace_sync_skill_words WHERE tags @> %s::jsonb",
    _TAGGED["sqlite"]: "SELECT count(*) FROM marketplace_sync_skill_tag WHERE tag = %s",
}


def problem_of(text: str) -> str:
    """Return why a search for this text is refused, "" if it is not. The text is for the person who searches.

    The number of words is bounded, since each is looked up and compared with the others. A word of one character is too
    short to search for.
    """
    if len(text) > MAX_CHARS:
        return f"At most {MAX_CHARS} characters."
    if len(_WORD.findall(text)) > MAX_WORDS:
        return f"At most {MAX_WORDS} words."
    for typed in text.split():
        word = "".join(_WORD.findall(typed))
        if len(word) == 1 and not _begins(word):
            return f"Each word needs at least two letters or digits; {word!r} has one. Leave it out."
    return ""


def _begins(word: str) -> bool:
    """Return whether to find longer words, too. In Chinese, Japanese and Korean one character is a word."""
    wide = unicodedata.category(word[0]) == "Lo" and unicodedata.east_asian_width(word[0]) == "W"
    return len(word) > 1 or wide


class SkillQuerySet(models.QuerySet[Any]):
    """Skills, with search and the tag filter."""

    _only: tuple[str, str] | None = None  # the one condition of `matching` or `tagged`, and its value

    def matching(self, text: str) -> Self:
        """Return the skills in which each word of `text` begins a word; none if `text` has no word."""
        words = _WORD.findall(text.lower())
        if not words:
            return self.none()
        if connection.vendor == "postgresql":
            query = " & ".join(f"'{word}':*" if _begins(word) else f"'{word}'" for word in words)
        else:
            query = " AND ".join(f'"{word}"*' if _begins(word) else f'"{word}"' for word in words)
        return self._with_condition(_FOUND[connection.vendor], query)

    def tagged(self, tag: str) -> Self:
        """Return the skills that have exactly this tag."""
        value = json.dumps([tag]) if connection.vendor == "postgresql" else tag
        return self._with_condition(_TAGGED[connection.vendor], value)

    def count(self) -> int:
        if self._only is not None and self._only[0] in _COUNTED and len(self.query.where.children) == 1:
            with connection.cursor() as cursor:
                cursor.execute(_COUNTED[self._only[0]], [self._only[1]])
                return int(cursor.fetchone()[0])
        return super().count()

    def _with_condition(self, condition: str, value: str) -> Self:
        found = self.filter(RawSQL(condition, [value], output_field=models.BooleanField()))
        found._only = None if self.query.where else (condition, value)
        return found

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._only = self._only
        return clone
