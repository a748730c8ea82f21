"""The task that begins passes when the schedule says so, and tells who waited for one how it ended."""

import asyncio
from collections.abc import Callable

from structlog.contextvars import bound_contextvars

from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.full_sync import SyncReport, SyncRunner
from marketplace_sync.daemon.intake import Announced
from marketplace_sync.daemon.write_queue import WriterClosedError
from marketplace_sync.engine.schedule import Schedule, SyncOutcome
from marketplace_sync.models import SyncRun

# Second passes that follow one another at once, when none of them proves the absences; after that
# the next poll looks again. A market that moves faster than it is read must not be read for ever.
MAX_CONFIRMING = 3


class SyncLoop:
    """Runs one pass at a time by the rules of `engine.schedule`. `passed` hears of each, with the seconds it took."""

    def __init__(
        self,
        runner: SyncRunner,
        schedule: Schedule,
        announced: Announced,
        completeness: Completeness,
        *,
        clock: Callable[[], float],
        changed: Callable[[], None],
        passed: Callable[[SyncReport, float], None] = lambda *_: None,
    ) -> None:
        self._passed = passed
        self._runner = runner
        self._schedule = schedule
        self._announced = announced
        self._completeness = completeness
        self._clock = clock
        self._changed = changed
        self._wake = asyncio.Event()
        self._waiters: dict[int, asyncio.Future[SyncReport]] = {}
        self._approvals: dict[int, frozenset[str]] = {}
        self._confirming = 0
        self._token_refused = False

    @property
    def caught_up(self) -> bool:
        return self._schedule.caught_up

    def stream_opened(self) -> None:
        self._schedule.stream_opened(self._clock())
        self._wake.set()

    def no_stream(self) -> None:
        """There is no stream to wait for: the first pass may begin."""
        self._schedule.first_attempt_failed(self._clock())
        self._wake.set()

    def poll_now(self) -> None:
        self._schedule.poll_now(self._clock())
        self._wake.set()

    def token_replaced(self) -> None:
        """There is another token: what the old one was refused is tried at once."""
        if self._token_refused:
            self._schedule.mended(self._clock())
            self._wake.set()

    def loss(self) -> None:
        self._completeness.lost()
        self._schedule.loss(self._clock())
        self._wake.set()

    async def ask(self, command_id: int, approved: frozenset[str] = frozenset()) -> SyncReport:
        """A pass begun from now on; its report. `approved`: removals that a person let go ahead."""
        waiter: asyncio.Future[SyncReport] = asyncio.get_running_loop().create_future()
        self._waiters[command_id] = waiter
        self._approvals[command_id] = approved
        self._schedule.asked(self._clock(), command_id)
        self._wake.set()
        try:
            return await waiter
        finally:
            self._waiters.pop(command_id, None)
            self._approvals.pop(command_id, None)

    async def run(self) -> None:
        """Until cancelled, or until the writer takes nothing more."""
        while True:
            self._wake.clear()
            if self._schedule.due(self._clock()) is None:
                await self._sleep()
                continue
            order = self._schedule.sync_began(self._clock())
            self._changed()
            approved = frozenset().union(*(self._approvals.get(command, frozenset()) for command in order.commands))
            begun = self._clock()
            asked_by = {"commands": list(order.commands)} if order.commands else {}
            try:
                with bound_contextvars(**asked_by):
                    report = await self._runner.run(str(order.reason), approved=approved)
            except WriterClosedError:
                return
            self._ended(report)
            self._passed(report, self._clock() - begun)
            for command in order.commands:
                if (waiter := self._waiters.get(command)) is not None and not waiter.done():
                    waiter.set_result(report)
            self._changed()

    def _ended(self, report: SyncReport) -> None:
        now = self._clock()
        outcome = _OUTCOMES[report.state]
        self._token_refused = report.refused_token
        self._completeness.synced(report)
        self._schedule.sync_ended(now, outcome, report.retry_after)
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


_OUTCOMES = {
    SyncRun.State.DONE: SyncOutcome.DONE,
    SyncRun.State.DEGRADED: SyncOutcome.DONE,
    SyncRun.State.HELD: SyncOutcome.HELD,
    SyncRun.State.FAILED: SyncOutcome.FAILED,
}
