"""Compare what search finds skills by with their rows, and bring it in line (law 16).

Triggers keep these tables (migrations 0003, 0007 and 0010), whatever writes a skill. A restore that left triggers out,
or a person with SQL, can leave a skill that no search and no tag finds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import LeaseRow, Skill

_SKILL = Skill._meta.db_table
_WORDS, _TAGS = f"{_SKILL}_words", f"{_SKILL}_tag"
# An entry without a skill is named by the row number that it has.
_NAME = "coalesce(skill.skill_id, 'row ' || entry.skill)"


def misfiled_skills() -> set[str]:
    """Return the skills that search or the tag filter does not find by the values of their rows. Reads every row."""
    return _MISFILED[connection.vendor]()


def refile_skills(lease: Lease) -> int:
    """Rebuild the search tables from the rows; return how many skills were misfiled. Raises `LeaseLostError`."""
    misfiled = misfiled_skills()
    if misfiled:
        with lease.writing():
            for statement in _REFILE[connection.vendor]:
                dialect().execute(statement)
            # The lease could not be renewed meanwhile: 100,000 skills take SQLite some seconds.
            LeaseRow.objects.filter(pk=1).update(renewed_at=database_now())
    return len(misfiled)


_POSTGRES_WORDS = "marketplace_sync_words_of(skill.name, skill.description, skill.tags)"
_POSTGRES_MISFILED = f"""
    SELECT {_NAME} FROM {_SKILL} AS skill FULL JOIN {_WORDS} AS entry ON entry.skill = skill.id
    WHERE skill.id IS NULL OR entry.skill IS NULL OR entry.tags <> skill.tags OR entry.words <> {_POSTGRES_WORDS}
"""
_POSTGRES_REFILE = (
    f"DELETE FROM {_WORDS} AS entry WHERE NOT EXISTS (SELECT FROM {_SKILL} AS skill WHERE skill.id = entry.skill)",
    f"INSERT INTO {_WORDS} AS entry (skill, words, tags) SELECT id, {_POSTGRES_WORDS}, tags FROM {_SKILL} AS skill "
    "ON CONFLICT (skill) DO UPDATE SET words = excluded.words, tags = excluded.tags "
    "WHERE entry.words <> excluded.words OR entry.tags <> excluded.tags",
)

_ALL_TAGS = f"SELECT DISTINCT tag.value AS tag, skill.id AS skill FROM {_SKILL} AS skill, json_each(skill.tags) AS tag"
_SQLITE_WORDS = (
    "SELECT skill.id, skill.name || ' ' || skill.description || ' ' || "
    f"(SELECT ifnull(group_concat(value, ' '), '') FROM json_each(skill.tags)) FROM {_SKILL} AS skill"
)
_SQLITE_MISFILED_TAGS = f"""
    SELECT {_NAME} FROM (
        SELECT skill FROM (SELECT tag, skill FROM {_TAGS} EXCEPT {_ALL_TAGS})
        UNION SELECT skill FROM ({_ALL_TAGS} EXCEPT SELECT tag, skill FROM {_TAGS})
    ) AS entry LEFT JOIN {_SKILL} AS skill ON skill.id = entry.skill
"""
# The index keeps no copy of the texts. So a second one is made of the rows, and their terms are compared.
_SQLITE_SET_UP = (
    "CREATE VIRTUAL TABLE temp.search_expected USING fts5"
    "(words, content='', detail=none, columnsize=0, tokenize='unicode61 remove_diacritics 0')",
    f"INSERT INTO temp.search_expected (rowid, words) {_SQLITE_WORDS}",
    "CREATE VIRTUAL TABLE temp.search_expected_terms USING fts5vocab('temp', 'search_expected', 'instance')",
    f"CREATE VIRTUAL TABLE temp.search_stored_terms USING fts5vocab('main', '{_WORDS}', 'instance')",
)
_SQLITE_MISFILED_WORDS = f"""
    SELECT DISTINCT {_NAME} FROM (
        SELECT doc AS skill FROM (
            SELECT term, doc, 1 AS places FROM temp.search_expected_terms
            UNION ALL SELECT term, doc, -1 FROM temp.search_stored_terms
        ) GROUP BY term, doc HAVING sum(places) <> 0
    ) AS entry LEFT JOIN {_SKILL} AS skill ON skill.id = entry.skill
"""
_SQLITE_REFILE = (
    f"INSERT INTO {_WORDS} ({_WORDS}) VALUES ('delete-all')",
    f"INSERT INTO {_WORDS} (rowid, words) {_SQLITE_WORDS}",
    f"DELETE FROM {_TAGS}",
    f"INSERT INTO {_TAGS} (tag, skill) {_ALL_TAGS}",
)


def _misfiled_postgres() -> set[str]:
    return {name for (name,) in dialect().select(_POSTGRES_MISFILED)}


def _misfiled_sqlite() -> set[str]:
    with _sqlite_snapshot():
        for statement in _SQLITE_SET_UP:
            dialect().execute(statement)
        return {name for sql in (_SQLITE_MISFILED_TAGS, _SQLITE_MISFILED_WORDS) for (name,) in dialect().select(sql)}


@contextmanager
def _sqlite_snapshot() -> Iterator[None]:
    """Run several statements on one snapshot, without the write lock that Django's transactions take."""
    dialect().execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        dialect().execute("ROLLBACK")


_MISFILED: dict[str, Callable[[], set[str]]] = {"postgresql": _misfiled_postgres, "sqlite": _misfiled_sqlite}
_REFILE = {"postgresql": _POSTGRES_REFILE, "sqlite": _SQLITE_REFILE}
