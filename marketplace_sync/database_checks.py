"""System checks that query the database: for `check --database default`, `migrate`, and the commands that write."""

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
    """Check that the database can store every text, and that the settings suit a connection pooler.

    A database that does not answer is not reported, because that is not an error in the settings.
    """
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return []
    connection: Any = connections[DEFAULT_DB_ALIAS]
    checks = {"postgresql": (_encoding, _pooling), "sqlite": (_sqlite_build, _sqlite_encoding)}
    try:
        return [found for check in checks.get(connection.vendor, ()) for found in check(connection)]
    except DatabaseError:
        return []


def _query(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def _encoding(connection: Any) -> list[CheckMessage]:
    encoding = _query(connection, "SHOW server_encoding")
    if encoding == "UTF8":
        return []
    name = connection.settings_dict["NAME"]
    problem = f"The database {name} has the encoding {encoding}, which cannot store every text."
    hint = f"Create another database: CREATE DATABASE {name}_utf8 ENCODING 'UTF8' TEMPLATE template0;"
    return [Error(problem, hint=hint, id="marketplace_sync.E096")]


def _pooling(connection: Any) -> list[CheckMessage]:
    if is_shared_per_transaction(connection):
        missing = [f"{name} = '{value}'" for name, value in role_timeouts(connection).items()]
        if not missing:
            return []
        role = _query(connection, "SELECT quote_ident(current_user)")
        problem = "A pooler shares the sessions, so the time-outs must be set for the role, and they are not."
        hint = " ".join(f"ALTER ROLE {role} SET {each};" for each in missing)
        return [Warning(problem, hint=f"{hint} Then RECONNECT in the pooler.", id="marketplace_sync.W097")]
    if not is_pooled_per_transaction(connection):
        return []
    problem = "A pooler gives each transaction another session of PostgreSQL, but the settings do not allow for it."
    hint = (
        "Use pool_mode = session for this database, or add ?DISABLE_SERVER_SIDE_CURSORS=true to DATABASE_URL "
        "('DISABLE_SERVER_SIDE_CURSORS': True in DATABASES)."
    )
    return [Error(problem, hint=hint, id="marketplace_sync.E097")]


def _sqlite_build(connection: Any) -> list[CheckMessage]:
    found = sqlite3.sqlite_version_info
    missing = [] if found >= _OLDEST_SQLITE else [f"version {'.'.join(map(str, _OLDEST_SQLITE))}"]
    if not _query(connection, "SELECT sqlite_compileoption_used('ENABLE_FTS5')"):
        missing.append("FTS5")
    try:
        _query(connection, "SELECT json_group_array(1)")
    except DatabaseError:
        missing.append("JSON")
    if not missing:
        return []
    problem = f"This Python's SQLite {sqlite3.sqlite_version} does not have {', '.join(missing)}."
    hint = "Use a Python whose SQLite has it, such as those of python.org and of Linux distributions, or PostgreSQL."
    return [Error(problem, hint=hint, id="marketplace_sync.E098")]


def _sqlite_encoding(connection: Any) -> list[CheckMessage]:
    encoding = _query(connection, "PRAGMA encoding")
    if encoding == "UTF-8":
        return []
    problem = f"The SQLite file has the encoding {encoding}; the mirror needs UTF-8."
    return [Error(problem, hint="Remove the file, and let migrate create a new one.", id="marketplace_sync.E096")]
