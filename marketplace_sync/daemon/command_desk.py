"""Takes on what people and agents ask for, does it, and says how it went (law 11)."""

import asyncio
from collections.abc import Callable

import structlog
from structlog.contextvars import bind_contextvars

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.pass_loop import PassLoop
from marketplace_sync.daemon.passes import PassReport
from marketplace_sync.daemon.replay import CannotReplay, Replayer
from marketplace_sync.daemon.stream_driver import CannotReconnect, StreamDriver
from marketplace_sync.mirror.commands import accept, answer, open_commands
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.runs import held_removals, mark_approved
from marketplace_sync.mirror.state import save_enabled
from marketplace_sync.models import Command, SyncRun

log = structlog.get_logger(__name__)

# `disable` is to close the stream in under 2 s, request to close.
LOOK_EVERY_SECONDS = 0.5

Action = Command.Action


class CannotDo(Exception):
    """The request can't be carried out; the text says why and what to do instead."""


class CommandDesk:
    """Each accepted command is a task of its own, so that a slow one keeps nobody waiting.

    `ended` is called with the action and the last state of each.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        driver: StreamDriver,
        passes: PassLoop,
        replayer: Replayer,
        *,
        stream_wanted: bool,
        ended: Callable[[str, Command.State], None] = lambda *_: None,
    ) -> None:
        self._ended = ended
        self._database = database
        self._lease = lease
        self._driver = driver
        self._passes = passes
        self._replayer = replayer
        self._stream_wanted = stream_wanted

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as accepted:
            while True:
                for command in await self._database.control(open_commands):
                    if await self._database.control(accept, self._lease, command.pk):
                        accepted.create_task(self._serve(command), name=f"command {command.pk}")
                    else:
                        self._ended(command.action, Command.State.EXPIRED)
                await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _serve(self, command: Command) -> None:
        bind_contextvars(command=command.pk)  # of this task alone
        log.info("command_accepted", action=command.action, by=command.requested_by)
        try:
            result = await self._do(command)
            state = Command.State.DONE
        except (CannotDo, CannotReconnect, CannotReplay) as refusal:
            result = {"detail": str(refusal)}
            state = Command.State.FAILED
        await self._database.control(answer, self._lease, command.pk, state, result)
        self._ended(command.action, state)
        log.info("command_ended", action=command.action, state=str(state))

    async def _do(self, command: Command) -> dict[str, object]:
        match command.action:
            case Action.RECONNECT:
                return await self._reconnect()
            case Action.DISABLE:
                await self._database.control(save_enabled, self._lease, enabled=False)
                await self._driver.disable()
                return {"detail": "The stream is closed and stays closed; polling goes on."}
            case Action.ENABLE:
                return await self._enable()
            case Action.SYNC:
                return _told(await self._passes.ask(command.pk))
            case Action.APPROVE:
                return await self._approve(command)
            case Action.REPLAY:
                return await self._replayer.replay(int(command.args.get("dead_letter", 0)))
        raise CannotDo(f"This daemon does not know how to {command.action}.")

    async def _reconnect(self) -> dict[str, object]:
        self._need_stream()
        failure = await self._driver.reconnect()
        if failure:
            raise CannotDo(f"The stream could not be opened: {failure}")
        return {"detail": "A new stream is open."}

    async def _enable(self) -> dict[str, object]:
        await self._database.control(save_enabled, self._lease, enabled=True)
        self._need_stream()
        await self._driver.enable()
        return {"detail": "The stream is wanted again; an attempt is under way."}

    def _need_stream(self) -> None:
        if not self._stream_wanted:
            raise CannotDo(
                "This daemon runs without the stream (--no-websocket or ATOM_SAAS_WS_ENABLED=false); "
                "restart it without that."
            )

    async def _approve(self, command: Command) -> dict[str, object]:
        run_id = int(command.args.get("run", 0))
        held = await self._database.control(held_removals, run_id)
        if not held:
            raise CannotDo(f"Run {run_id} holds no removals back (any more); see the newest run.")
        report = await self._passes.ask(command.pk, approved=held)
        result = _told(report)
        if not report.clean:
            # An unclean pass does not know what is still absent, so it removed nothing for the approval's sake.
            raise CannotDo(f"The listing proves nothing: {report.unclean_reason}. Run {run_id} still waits; ask again.")
        await self._database.control(mark_approved, self._lease, run_id)
        return result


def _told(report: PassReport) -> dict[str, object]:
    """A pass's result for whoever asked for it."""
    if report.state == SyncRun.State.FAILED:
        raise CannotDo(f"The pass failed: {report.error}")
    return {
        "run": report.run_id,
        "state": str(report.state),
        "created": report.progress.created,
        "updated": report.progress.updated,
        "removed": report.progress.removed,
        "held": report.held,
    }
