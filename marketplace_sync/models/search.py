"""How skills are found among a hundred thousand, on both databases by an index (migrations 0003 and 0010).

A search is words: each has to begin a word of the skill's name, description or tags, in upper or lower
case. `send mail` finds "Mailer: sends" and not "e-mail", nor a word's middle. A word of one letter has to be one
there too (`x-ray` finds "X ray"): so many words begin with it that looking for all of them would cost too much.
"""

import json
import re
import unicodedata
from typing import Any, Self

from django.db import connection, models
from django.db.models.expressions import RawSQL

# Letters and digits of any language; what is between them separates words, the underscore too.
_WORD = re.compile(r"[^\W_]+")

MAX_CHARS = 200
MAX_WORDS = 8

_FOUND = {
    "postgresql": "marketplace_sync_skill.id IN "
    "(SELECT skill FROM marketplace_sync_skill_words WHERE words @@ to_tsquery('pg_catalog.simple', %s))",
    # The + keeps SQLite from looking up every skill found before it sorts them: it goes along the ordering's index
    # and asks of each whether it was found, which for a common word takes 80 ms instead of 840 (100,000 skills).
    "sqlite": "+marketplace_sync_skill.id IN "
    "(SELECT rowid FROM marketplace_sync_skill_words WHERE marketplace_sync_skill_words MATCH %s)",
}
_TAGGED = {
    "postgresql": "marketplace_sync_skill.id IN "
    "(SELECT skill FROM marketplace_sync_skill_words WHERE tags @> %s::jsonb)",
    "sqlite": "+marketplace_sync_skill.id IN (SELECT skill FROM marketplace_sync_skill_tag WHERE tag = %s)",
}
# How many: counted in the index alone, where nothing else narrows (SQLite: 20 ms instead of 160).
_COUNTED = {
    _FOUND["postgresql"]: "SELECT count(*) FROM marketplace_sync_skill_words "
    "WHERE words @@ to_tsquery('pg_catalog.simple', %s)",
    _FOUND["sqlite"]: "SELECT count(*) FROM marketplace_sync_skill_words WHERE marketplace_sync_skill_words MATCH %s",
    _TAGGED["postgresql"]: "SELECT count(*) FROM marketplace_sync_skill_words WHERE tags @> %s::jsonb",
    _TAGGED["sqlite"]: "SELECT count(*) FROM marketplace_sync_skill_tag WHERE tag = %s",
}


def problem_of(text: str) -> str:
    """Return why a search for this text is refused, for whoever wrote it; "" where it is not.

    Each word is looked up and held against the others, so their number is bounded. A word of one letter says too little
    to look for it alone.
    """
    if len(text) > MAX_CHARS:
        return f"At most {MAX_CHARS} characters."
    if len(_WORD.findall(text)) > MAX_WORDS:
        return f"At most {MAX_WORDS} words."
    for typed in text.split():
        letters = "".join(_WORD.findall(typed))
        if len(letters) == 1 and not _begins(letters):
            return f"Each word needs two letters or digits at least; {letters!r} has one. Leave it out."
    return ""


def _begins(word: str) -> bool:
    """Return whether to look for words that begin so, too. In Chinese, Japanese and Korean one character is a word."""
    wide = unicodedata.category(word[0]) == "Lo" and unicodedata.east_asian_width(word[0]) == "W"
    return len(word) > 1 or wide


class SkillQuerySet(models.QuerySet[Any]):
    """Skills by what people look for."""

    _only: tuple[str, str] | None = None  # the one condition of `matching` or `tagged`, and its value

    def matching(self, text: str) -> Self:
        """Those that have every word of `text`, or a word that begins with it; none where `text` has no word."""
        words = _WORD.findall(text.lower())
        if not words:
            return self.none()
        if connection.vendor == "postgresql":
            query = " & ".join(f"'{word}':*" if _begins(word) else f"'{word}'" for word in words)
        else:
            query = " AND ".join(f'"{word}"*' if _begins(word) else f'"{word}"' for word in words)
        return self._holding(_FOUND[connection.vendor], query)

    def tagged(self, tag: str) -> Self:
        """Those that have exactly this tag."""
        value = json.dumps([tag]) if connection.vendor == "postgresql" else tag
        return self._holding(_TAGGED[connection.vendor], value)

    def count(self) -> int:
        if self._only is not None and self._only[0] in _COUNTED and len(self.query.where.children) == 1:
            with connection.cursor() as cursor:
                cursor.execute(_COUNTED[self._only[0]], [self._only[1]])
                return int(cursor.fetchone()[0])
        return super().count()

    def _holding(self, condition: str, value: str) -> Self:
        found = self.filter(RawSQL(condition, [value], output_field=models.BooleanField()))
        found._only = None if self.query.where else (condition, value)
        return found

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone._only = self._only
        return clone
