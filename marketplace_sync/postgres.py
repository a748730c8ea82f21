"""Sessions on PostgreSQL: what each of them is set to, and which kind of pooler stands before the server.

A statement on each new connection makes the settings. As `options` at start-up they would be refused by PgBouncer,
and replaced by `options` of the operator's own.
"""

from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.signals import connection_created

# A process that is paused, or whose host is gone, between two statements of a transaction would keep its locks: the
# server ends that session, sooner than the lease (10 s) is over. (Paused within a pipeline it does not: see
# `mirror.lease.acquire`.) And a statement waits as long as on SQLite for a lock of somebody else.
SESSION = {"idle_in_transaction_session_timeout": "8s", "lock_timeout": "20s"}

# What the operator wrote for the role, for the database or as `options` is kept.
_SET = (
    "SELECT set_config(wanted.name, wanted.value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) "
    "JOIN pg_settings ON pg_settings.name = wanted.name "
    "WHERE source NOT IN ('database', 'user', 'database user', 'client')"
)
_wanted: dict[str, str] = {}


def set_up_sessions(**more: str) -> None:
    """Have this process set each new connection to the default database to `SESSION` and `more`.

    Changes nothing on SQLite. A web process adds its `statement_timeout`; calls add up. Connections that are open
    already keep their settings.
    """
    for name, value in SESSION.items():
        _wanted.setdefault(name, value)
    _wanted.update(more)
    connection_created.connect(_set_up, dispatch_uid=__name__)


def is_shared_per_transaction(database: Any) -> bool:
    """Return whether the settings declare a pooler that gives each transaction another session.

    Django's setting for that is `DISABLE_SERVER_SIDE_CURSORS`. What is set on such a session would reach other clients,
    and a prepared statement would be missing from the next one.
    """
    return bool(database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def is_pooled_per_transaction(database: Any) -> bool:
    """Return whether two open connections were given the same session, which proves that a pooler shares them.

    Only a pooler invents the process number that it reports to a client, so a true one needs no second connection.
    """
    database.ensure_connection()
    first = database.connection
    if _session_of(first) == first.info.backend_pid:
        return False
    parameters = database.get_connection_params()
    with database.wrap_database_errors, database.Database.connect(**{**parameters, "autocommit": True}) as second:
        return any(_session_of(first) == _session_of(second) for _ in range(_TRIES))


# Another client may take a session between two looks.
_TRIES = 5


def _session_of(session: Any) -> int:
    return int(session.execute("SELECT pg_backend_pid()").fetchone()[0])


def role_timeouts(database: Any) -> dict[str, str]:
    """Return the settings of `SESSION` that the role and the database do not bring."""
    with database.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s) AND reset_val = '0'", [list(SESSION)])
        return {name: SESSION[name] for (name,) in cursor.fetchall()}


def _set_up(connection: Any, **_: Any) -> None:
    if connection.vendor != "postgresql" or connection.alias != DEFAULT_DB_ALIAS:
        return
    session = connection.connection
    # A pool gives out one connection many times.
    if getattr(session, "_marketplace_sync", None) == _wanted or is_shared_per_transaction(connection):
        return
    try:
        session.execute(_SET, (list(_wanted), list(_wanted.values())))
    except BaseException:
        connection.close()  # else the next statement would run without the settings
        raise
    session._marketplace_sync = dict(_wanted)
