"""Run what the commands start: an event loop, signals, and errors turned into one line and an exit status."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NoReturn, TypeVar

import structlog
from django.db import Error

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.core import Daemon
from marketplace_sync.daemon.database import PASSING, Database
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.memory import keep_small
from marketplace_sync.daemon.owning import holder_name, take_lease, wait_for_lease
from marketplace_sync.daemon.session import NotDrainedError, writing_session
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.verify import Verifier
from marketplace_sync.mirror.compare import Difference
from marketplace_sync.mirror.lease import LeaseLostError, LeaseTakenError
from marketplace_sync.mirror.search_index import refile_skills
from marketplace_sync.models import SyncRun
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.errors import UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The drain gives up after 4 s (`session.DRAIN_SECONDS`). Nothing else delays a stop past this, above all no thread that
# hangs in the database: a stop takes 5 s at most.
_STOP_SECONDS = 4.7
# Nobody waits for the end of a single full sync as for a stop: listeners to the signals may take longer.
_LISTENERS_SECONDS = 10.0
# A repair reads again if the marketplace changed meanwhile, so that no absence could be proved.
_REPAIR_SYNCS = 3


class OperatorError(Exception):
    """An error that an operator can fix, in one line. `status`: the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def run_daemon(
    config: SyncConfig, access: Access, *, stream_wanted: bool, hint: Callable[[int], None] = lambda _: None
) -> None:
    """Wait for the lease, then keep the mirror in sync until SIGTERM or SIGINT. `hint`: see `Daemon`.

    SIGHUP reads the token's file now; without it the daemon looks every few seconds. If the daemon has a terminal,
    SIGHUP means that the terminal is gone, and acts as SIGTERM.
    """

    async def daemon(database: Database, stop: asyncio.Event) -> None:
        in_a_terminal = sys.stdin is not None and sys.stdin.isatty()
        hang_up = partial(signal.raise_signal, signal.SIGTERM) if in_a_terminal else access.token.look
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
        lease = await wait_for_lease(database, holder_name(), stop)
        if lease is not None:
            await Daemon(config, access, stream_wanted=stream_wanted, hint=hint).run(database, lease, stop)

    keep_small()
    _run(daemon)


def run_once(config: SyncConfig, access: Access) -> SyncReport:
    """Run one full sync, and a second one if absences need its proof. Raise `OperatorError` if it fails."""

    async def once(database: Database, stop: asyncio.Event) -> SyncReport:
        return await _sync(config, access, database, stop, repair=False)

    report = _run(once)
    if report.state == SyncRun.State.FAILED:
        raise OperatorError(f"the full sync failed: {report.error}")
    if report.unread:
        raise OperatorError(f"part of the listing could not be read: {report.unread}. What was read is applied.")
    return report


def compare(config: SyncConfig, access: Access, *, repair: bool = False) -> Difference:
    """Return how the mirror differs from the marketplace, after a repair if `repair` is set.

    Raise `OperatorError` with status 2 if the marketplace cannot be read.
    """

    async def verify(database: Database, stop: asyncio.Event) -> Difference:
        if repair:
            report = await _sync(config, access, database, stop, repair=True)
            if report.state == SyncRun.State.FAILED:
                raise OperatorError(f"the marketplace cannot be read: {report.error}", 2)
        return await _stoppable(_verified(config, access, database, lambda verifier: verifier.difference()), stop)

    return _run(verify)


def foresee(config: SyncConfig, access: Access) -> tuple[Difference, dict[str, int]]:
    """Return what a full sync would change, and how many of each kind. Write nothing. Raise `OperatorError`."""

    async def dry(database: Database, stop: asyncio.Event) -> tuple[Difference, dict[str, int]]:
        async def look(verifier: Verifier) -> tuple[Difference, dict[str, int]]:
            return await verifier.look(), dict(verifier.would)

        return await _stoppable(_verified(config, access, database, look), stop)

    return _run(dry)


async def _sync(
    config: SyncConfig, access: Access, database: Database, stop: asyncio.Event, *, repair: bool
) -> SyncReport:
    lease = await take_lease(database, holder_name(), stop)
    async with MarketClient(config, access) as market, writing_session(database, lease, config) as session:
        options = SyncOptions(page_size=config.page_size, max_pages=config.max_pages, repair=repair, by_row=True)
        runner = SyncRunner(market, session, options)
        try:
            report = await _stoppable(_repaired(runner) if repair else _once(runner), stop)
            if repair:
                await _stoppable(database.survey(refile_skills, lease), stop)
            await asyncio.to_thread(session.announcer.close, _LISTENERS_SECONDS)
            return report
        except OperatorError as failure:
            # Leave in order: what was read is written, the run is closed, the lease is released.
            stopped = failure
    raise stopped


async def _once(runner: SyncRunner) -> SyncReport:
    report = await runner.run("once")
    return await runner.run("confirm") if report.again else report


async def _repaired(runner: SyncRunner) -> SyncReport:
    for _ in range(_REPAIR_SYNCS):
        report = await runner.run("repair")
        if report.clean or report.state == SyncRun.State.FAILED:
            break
    return report


async def _verified(
    config: SyncConfig, access: Access, database: Database, ask: Callable[[Verifier], Awaitable[T]]
) -> T:
    async with MarketClient(config, access) as market:
        verifier = Verifier(market, database, page_size=config.page_size, max_pages=config.max_pages)
        try:
            return await ask(verifier)
        except UpstreamError as error:
            raise OperatorError(f"the marketplace cannot be read: {error.reason}", 2) from None


async def _stoppable(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """Let a signal end work that has no stop of its own."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise OperatorError("interrupted before it was done")
        return working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _run(main: Callable[[Database, asyncio.Event], Awaitable[T]]) -> T:
    """Run `main` with a database and a stop that the signals set. Raise `OperatorError` for all that is no bug."""
    too_late = threading.Timer(_STOP_SECONDS, _leave, ["the stop took too long: the database does not answer"])
    too_late.daemon = True

    async def guarded() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked_to_stop() -> None:
            if not stop.is_set():
                stop.set()
                too_late.start()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked_to_stop)
        database = Database()
        try:
            return await main(database, stop)
        except BaseExceptionGroup as group:
            if undrained := _first(group, NotDrainedError):
                _leave(str(undrained))
            raise _operator_error(group) from group
        except (LeaseLostError, LeaseTakenError, Error) as error:
            raise OperatorError(_line(error)) from None
        finally:
            if not await database.close():
                # Python's own exit would wait for that thread, and it may never return.
                _leave("the database does not answer: a query is still under way")

    try:
        return asyncio.run(guarded())
    finally:
        too_late.cancel()


def _leave(reason: str) -> NoReturn:
    """Log the reason and exit 1 now. Python's own exit would wait for a thread that hangs in the database."""
    log.error("exit", reason=reason)
    sys.stderr.flush()
    os._exit(1)


def _operator_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one line for an error that an operator can fix, and the group itself for a bug."""
    known, bugs = group.split((LeaseLostError, LeaseTakenError, Error, OperatorError))
    if bugs is not None or known is None:
        return group
    leaf = _first(known, BaseException) or known
    return leaf if isinstance(leaf, OperatorError) else OperatorError(_line(leaf))


def _first(group: BaseExceptionGroup[BaseException], kind: type[BaseException]) -> BaseException | None:
    """Return the first exception of that kind in a group of groups."""
    found: BaseException | None = group.subgroup(kind)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _line(error: BaseException) -> str:
    if isinstance(error, Error):
        trouble = "does not answer" if isinstance(error, PASSING) else f"refused ({type(error).__name__})"
        return f"the database {trouble}: {' '.join(str(error).split())}"
    return str(error)
