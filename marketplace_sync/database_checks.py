"""System checks that ask the database itself: `check --database default`, `migrate`, and the commands that write."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import DatabaseError

from marketplace_sync.postgres import is_pooled_per_transaction, is_shared_per_transaction, role_timeouts

# UPDATE ... FROM.
_OLDEST_SQLITE = (3, 33)


@register("marketplace_sync", Tags.database)
def check_database(databases: Sequence[str] | None = None, **_options: Any) -> list[CheckMessage]:
    """Check that the database can keep every text, and what a pooler before it needs.

    A database that does not answer is no fault of the set-up.
    """
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return []
    connection: Any = connections[DEFAULT_DB_ALIAS]
    checks = {"postgresql": (_encoding, _pooling), "sqlite": (_sqlite_build, _sqlite_encoding)}
    try:
        return [found for check in checks.get(connection.vendor, ()) for found in check(connection)]
    except DatabaseError:
        return []


def _ask(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def _encoding(connection: Any) -> list[CheckMessage]:
    encoding = _ask(connection, "SHOW server_encoding")
    if encoding == "UTF8":
        return []
    name = connection.settings_dict["NAME"]
    problem = f"The database {name} has the encoding {encoding}, which can't keep every text: skills would be refused."
    hint = f"Make another one: CREATE DATABASE {name}_utf8 ENCODING 'UTF8' TEMPLATE template0;"
    return [Error(problem, hint=hint, id="marketplace_sync.E096")]


def _pooling(connection: Any) -> list[CheckMessage]:
    if is_shared_per_transaction(connection):
        missing = [f"{name} = '{value}'" for name, value in role_timeouts(connection).items()]
        if not missing:
            return []
        role = _ask(connection, "SELECT quote_ident(current_user)")
        problem = "A pooler shares the sessions, so the time-outs have to be the role's own, and are not."
        hint = " ".join(f"ALTER ROLE {role} SET {each};" for each in missing)
        return [Warning(problem, hint=f"{hint} Then RECONNECT in the pooler.", id="marketplace_sync.W097")]
    if not is_pooled_per_transaction(connection):
        return []
    problem = "A pooler gives each transaction another session of PostgreSQL, and the settings don't say so."
    hint = (
        "Use pool_mode = session for this database, or add ?DISABLE_SERVER_SIDE_CURSORS=true to DATABASE_URL "
        "('DISABLE_SERVER_SIDE_CURSORS': True in DATABASES)."
    )
    return [Error(problem, hint=hint, id="marketplace_sync.E097")]


def _sqlite_build(connection: Any) -> list[CheckMessage]:
    found = sqlite3.sqlite_version_info
    missing = [] if found >= _OLDEST_SQLITE else [f"version {'.'.join(map(str, _OLDEST_SQLITE))}"]
    if not _ask(connection, "SELECT sqlite_compileoption_used('ENABLE_FTS5')"):
        missing.append("FTS5")
    try:
        _ask(connection, "SELECT json_group_array(1)")
    except DatabaseError:
        missing.append("JSON")
    if not missing:
        return []
    problem = f"SQLite {sqlite3.sqlite_version}, as Python has it here, is without {', '.join(missing)}."
    hint = "Use a Python whose SQLite has it (python.org's and the distributions' have), or PostgreSQL."
    return [Error(problem, hint=hint, id="marketplace_sync.E098")]


def _sqlite_encoding(connection: Any) -> list[CheckMessage]:
    encoding = _ask(connection, "PRAGMA encoding")
    if encoding == "UTF-8":
        return []
    problem = f"The SQLite file has the encoding {encoding}; the mirror reads its texts as UTF-8."
    return [Error(problem, hint="Let migrate make a new file.", id="marketplace_sync.E096")]
