"""Shared by the commands: settings, a database that may not answer, and output to a terminal."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connection
from django.db.migrations.executor import MigrationExecutor

from marketplace_sync.conf import ConfigError, SettingProblem, SyncConfig, load_config
from marketplace_sync.database_checks import check_database
from marketplace_sync.logs import redact
from marketplace_sync.monitoring.summary import database_error_text
from marketplace_sync.postgres import set_up_sessions
from marketplace_sync.project_checks import project_errors
from marketplace_sync.upstream.access import Access
from marketplace_sync.visible import for_terminal


def configured(command: BaseCommand, *, error_status: int = 1, off_status: int = 0) -> tuple[SyncConfig, Access]:
    """Return the settings and the access to the marketplace.

    With an error in the settings or the database, print one line per error and exit before anything is changed.
    `off_status`: the exit status if ATOM_SAAS_ENABLED is false.
    """
    problems = environment_errors()
    try:
        config = load_config(settings, need_marketplace=True)
        if not config.enabled and not problems:
            print_line(command, "ATOM_SAAS_ENABLED is false: no connection is made, the local mirror stays as it is.")
            sys.exit(off_status)
        access = Access(config, getattr(settings, "ENVIRONMENT_TOKEN", None))
    except ConfigError as error:
        problems += error.problems
    if problems:
        fail(command, *map(str, problems), status=error_status)
    _refuse(command, project_errors(), error_status)
    set_up_sessions()
    if reason := unready():
        fail(command, reason, status=error_status)
    _refuse(command, check_database(databases=[DEFAULT_DB_ALIAS]), error_status)
    connection.close()
    return config, access


def _refuse(command: BaseCommand, found: Iterable[CheckMessage], status: int) -> None:
    errors = [f"{each.msg} {each.hint}" for each in found if each.is_serious()]
    if errors:
        fail(command, *errors, status=status)


@contextmanager
def using_database(command: BaseCommand) -> Iterator[None]:
    """Let a command use the database; if it cannot be used, end the command with one line."""
    if problems := environment_errors():
        fail(command, *map(str, problems))
    try:
        yield
    except Error as error:
        fail(command, f"{command.__module__.rpartition('.')[2]}: {database_error_text(error)}")


def environment_errors() -> tuple[SettingProblem, ...]:
    """Return the problems that kept Django's own settings from being read; the settings module stores them."""
    problems: tuple[SettingProblem, ...] = getattr(settings, "ENVIRONMENT_PROBLEMS", ())
    return tuple(problem for problem in problems if problem.level == "error")


def unready() -> str:
    """Return why the database cannot be used, and what to do; "" if it can be used."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes("marketplace_sync"))
    except DatabaseError as error:
        return f"The database does not answer: {' '.join(str(error).split())}"
    finally:
        # The threads that do the work have connections of their own.
        connection.close()
    if missing:
        return f"{len(missing)} migration(s) are not applied to the database. Run: python manage.py migrate"
    return ""


def print_line(command: BaseCommand, line: str) -> None:
    """Write one line to stdout, without the token (law 14), as `print_unredacted` does."""
    print_unredacted(command, redact(line))


def print_unredacted(command: BaseCommand, line: str) -> None:
    """Write one line to stdout, with nothing in it that acts on a terminal.

    Characters that stdout's encoding cannot represent are escaped.
    """
    command.stdout.write(_fit(command.stdout, for_terminal(line)))


def print_json(command: BaseCommand, value: Any) -> None:
    """Write `value` to stdout as JSON in ASCII, in which every other character is escaped."""
    command.stdout.write(redact(json.dumps(value, indent=2)).replace("\x7f", r"\u007f"))


def fail(command: BaseCommand, *lines: str, status: int = 1) -> NoReturn:
    """Print what is wrong on stderr, one line each, and end the command."""
    for line in lines:
        command.stderr.write(_fit(command.stderr, for_terminal(redact(line))))
    sys.exit(status)


def _fit(stream: Any, text: str) -> str:
    """Return `text` with what the stream cannot encode as an escape such as `\\u4f60`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
