"""What the commands have in common: settings, a database that may not answer, and what goes to the terminal."""

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


def configured(command: BaseCommand, *, fault_status: int = 1, off_status: int = 0) -> tuple[SyncConfig, Access]:
    """The settings, and what it takes to reach the marketplace.

    `off_status`: the exit status where ATOM_SAAS_ENABLED is false.
    Or one clear line a fault, and the end of the command before anything is touched.
    """
    faults = environment_errors()
    try:
        config = load_config(settings, need_marketplace=True)
        if not config.enabled and not faults:
            say(command, "ATOM_SAAS_ENABLED is false: no connection is made, the local mirror stays as it is.")
            sys.exit(off_status)
        access = Access(config, getattr(settings, "ENVIRONMENT_TOKEN", None))
    except ConfigError as error:
        faults += error.problems
    if faults:
        fail(command, *map(str, faults), status=fault_status)
    _refuse(command, project_errors(), fault_status)
    set_up_sessions()
    if reason := unready():
        fail(command, reason, status=fault_status)
    _refuse(command, check_database(databases=[DEFAULT_DB_ALIAS]), fault_status)
    connection.close()
    return config, access


def _refuse(command: BaseCommand, found: Iterable[CheckMessage], status: int) -> None:
    errors = [f"{each.msg} {each.hint}" for each in found if each.is_serious()]
    if errors:
        fail(command, *errors, status=status)


@contextmanager
def using_database(command: BaseCommand) -> Iterator[None]:
    """Let a command use the database; where that cannot be used, end the command with one clear line."""
    if faults := environment_errors():
        fail(command, *map(str, faults))
    try:
        yield
    except Error as error:
        fail(command, f"{command.__module__.rpartition('.')[2]}: {database_error_text(error)}")


def environment_errors() -> tuple[SettingProblem, ...]:
    """What Django's own settings could not be read from; the settings module leaves it there."""
    faults: tuple[SettingProblem, ...] = getattr(settings, "ENVIRONMENT_PROBLEMS", ())
    return tuple(fault for fault in faults if fault.level == "error")


def unready() -> str:
    """Why the database can't be used as it is, and what to do; "" when it can."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes("marketplace_sync"))
    except DatabaseError as fault:
        return f"The database does not answer: {' '.join(str(fault).split())}"
    finally:
        # The work is done by threads with connections of their own.
        connection.close()
    if missing:
        return f"The database lacks {len(missing)} migration(s) of this project. Run: python manage.py migrate"
    return ""


def say(command: BaseCommand, line: str) -> None:
    """Write one line to stdout, without the token (law 14), as `show` does."""
    show(command, redact(line))


def show(command: BaseCommand, line: str) -> None:
    """Write one line to stdout with nothing in it that acts on a terminal.

    Characters that stdout's encoding does not have are escaped.
    """
    command.stdout.write(_fit(command.stdout, for_terminal(line)))


def say_json(command: BaseCommand, value: Any) -> None:
    """Write `value` to stdout as JSON in ASCII, in which every other character is escaped."""
    command.stdout.write(redact(json.dumps(value, indent=2)).replace("\x7f", r"\u007f"))


def fail(command: BaseCommand, *lines: str, status: int = 1) -> NoReturn:
    """Say on stderr what is wrong, and end the command."""
    for line in lines:
        command.stderr.write(_fit(command.stderr, for_terminal(redact(line))))
    sys.exit(status)


def _fit(stream: Any, text: str) -> str:
    """Return `text` with what the stream cannot encode as an escape such as `\\u4f60`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
