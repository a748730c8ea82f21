"""The task that begins full syncs when they are due, and answers the commands that wait for one."""

import asyncio
from collections.abc import Callable

from structlog.contextvars import bound_contextvars

from marketplace_sync.daemon.full_sync import SyncRunner
from marketplace_sync.daemon.intake import Announced
from marketplace_sync.daemon.mailbox import Mailbox
from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.write_queue import WriterClosedError
from marketplace_sync.engine.connection_state import ConnectionState, Mode
from marketplace_sync.engine.schedule import SyncOrder, SyncOutcome
from marketplace_sync.models import SyncRun

# How many confirming syncs may follow one another without a wait, when none of them proves the absences. After that the
# next poll reads again: a marketplace that changes faster than it is read must not be read without end.
MAX_CONFIRMING = 3

_OUTCOMES = {
    SyncRun.State.DONE: SyncOutcome.DONE,
    SyncRun.State.DEGRADED: SyncOutcome.DONE,
    SyncRun.State.HELD: SyncOutcome.HELD,
    SyncRun.State.FAILED: SyncOutcome.FAILED,
}


class SyncLoop(DaemonObserver):
    """Run one full sync at a time, by the mailbox's schedule (the rules are in `engine.schedule`)."""

    def __init__(
        self,
        runner: SyncRunner,
        mailbox: Mailbox,
        announced: Announced,
        observers: DaemonObserver,
        clock: Callable[[], float],
    ) -> None:
        self._runner = runner
        self._schedule = mailbox.schedule
        self._wake = mailbox.sync_wanted
        self._announced = announced
        self._observers = observers
        self._clock = clock
        self._waiters: dict[int, asyncio.Future[SyncReport]] = {}
        self._approvals: dict[int, frozenset[str]] = {}
        self._confirming = 0
        self._token_refused = False

    def connection_changed(self, before: ConnectionState, after: ConnectionState) -> None:
        """Schedule the full sync that follows each connect, or the first one where there is no stream to wait for."""
        if after.mode is Mode.OPEN and before.mode is not Mode.OPEN:
            self._schedule.stream_opened(self._clock())
            self._wake.set()
        elif after.first_attempt_ended and not before.first_attempt_ended:
            self._schedule.first_attempt_failed(self._clock())
            self._wake.set()

    def token_replaced(self) -> None:
        """Retry now if the marketplace refused the previous token."""
        if self._token_refused:
            self._schedule.cause_removed(self._clock())
            self._wake.set()

    async def sync_for(self, command_id: int, approved: frozenset[str] = frozenset()) -> SyncReport:
        """Return the report of a full sync that begins from now on. `approved`: skills whose removal was approved."""
        waiter: asyncio.Future[SyncReport] = asyncio.get_running_loop().create_future()
        self._waiters[command_id] = waiter
        self._approvals[command_id] = approved
        self._schedule.commanded(self._clock(), command_id)
        self._wake.set()
        try:
            return await waiter
        finally:
            self._waiters.pop(command_id, None)
            self._approvals.pop(command_id, None)

    async def run(self) -> None:
        """Run full syncs until cancelled, or until the writer is closed."""
        while True:
            self._wake.clear()
            if self._schedule.due(self._clock()) is None:
                await self._sleep()
                continue
            order = self._schedule.sync_began(self._clock())
            self._observers.sync_began()
            begun = self._clock()
            try:
                report = await self._run_one(order)
            except WriterClosedError:
                return
            self._ended(report)
            self._observers.sync_ended(report, self._clock() - begun)
            for command in order.commands:
                if (waiter := self._waiters.get(command)) is not None and not waiter.done():
                    waiter.set_result(report)

    async def _run_one(self, order: SyncOrder) -> SyncReport:
        approved = frozenset().union(*(self._approvals.get(command, frozenset()) for command in order.commands))
        with bound_contextvars(**({"commands": list(order.commands)} if order.commands else {})):
            return await self._runner.run(str(order.reason), approved=approved)

    def _ended(self, report: SyncReport) -> None:
        now = self._clock()
        self._token_refused = report.refused_token
        self._schedule.sync_ended(now, _OUTCOMES[report.state], report.retry_after)
        self._confirming = self._confirming + 1 if report.again else 0
        if report.again and self._confirming <= MAX_CONFIRMING:
            self._schedule.confirm_needed(now)
        elif report.clean and not report.again:
            self._announced.forget_until(report.begun)

    async def _sleep(self) -> None:
        wake = self._schedule.next_wake()
        try:
            async with asyncio.timeout(None if wake is None else max(wake - self._clock(), 0.0)):
                await self._wake.wait()
        except TimeoutError:
            pass
