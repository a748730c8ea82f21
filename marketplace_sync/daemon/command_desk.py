"""Execute the commands of people and agents, and write their answers (law 11)."""

import asyncio
import time

import structlog
from structlog.contextvars import bind_contextvars

from marketplace_sync.daemon.replay import Replayer, ReplayError
from marketplace_sync.daemon.session import Session
from marketplace_sync.daemon.stream_driver import ReconnectError, StreamDriver
from marketplace_sync.daemon.sync_loop import SyncLoop
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.engine.connection_state import Mode
from marketplace_sync.governance.acceptance import refusal_reason
from marketplace_sync.mirror.commands import accept, answer, is_by_agent, pending_commands
from marketplace_sync.mirror.removals import dismiss, held_removals, mark_approved, why_closed
from marketplace_sync.mirror.state import save_enabled
from marketplace_sync.models import Command, SyncRun

log = structlog.get_logger(__name__)

# Time between two queries for new commands. The stream must be closed within 2 s of the command `disable`.
LOOK_EVERY_SECONDS = 0.5
# How many commands of agents are executed together. Those that only wait for a full sync do not count, because they use
# no database meanwhile. Commands of people have no such limit and come first. After each query, commands of agents are
# accepted for `LOOK_EVERY_SECONDS`, and at least one. So agents delay a person's command by that time at most.
_AGENTS_IN_SERVICE = 8

# The most reasons that an answer quotes for dead letters that could not be replayed.
_PROBLEMS_SHOWN = 5

Action = Command.Action


class CommandFailedError(Exception):
    """The command cannot be executed; the text is the reason and what to do. `run`: the sync run that failed."""

    def __init__(self, text: str, run: int | None = None) -> None:
        super().__init__(text)
        self.run = run


class CommandDesk:
    """Execute each accepted command in a task of its own, so that a slow one delays no other."""

    def __init__(
        self, session: Session, driver: StreamDriver, syncs: SyncLoop, replayer: Replayer, *, stream_wanted: bool
    ) -> None:
        self._database = session.database
        self._lease = session.lease
        self._observers = session.observers
        self._driver = driver
        self._syncs = syncs
        self._replayer = replayer
        self._stream_wanted = stream_wanted
        self._agents_in_service = 0
        self._approving: list[frozenset[str]] = []  # the skills of each approval under way

    async def run(self) -> None:
        """Execute commands until cancelled."""
        async with asyncio.TaskGroup() as accepted:
            while True:
                until = time.monotonic() + LOOK_EVERY_SECONDS
                agents = _AGENTS_IN_SERVICE - self._agents_in_service
                for command in await self._database.control(pending_commands, agents):
                    if await self._database.control(accept, self._lease, command.pk, refusal_reason):
                        self._agents_in_service += _counts(command)
                        accepted.create_task(self._serve(command), name=f"command {command.pk}")
                    else:
                        self._observers.command_ended(command.action, Command.State.EXPIRED)
                    if is_by_agent(command) and time.monotonic() > until:
                        break
                await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _serve(self, command: Command) -> None:
        bind_contextvars(command=command.pk)  # of this task alone
        log.info("command_accepted", action=command.action, by=command.requested_by)
        try:
            state = await self._settle(command)
        finally:
            self._agents_in_service -= _counts(command)
        self._observers.command_ended(command.action, state)
        log.info("command_ended", action=command.action, state=str(state))

    async def _settle(self, command: Command) -> Command.State:
        """Execute the command and write its answer; execute it again if the actor asked for another sync meanwhile."""
        while True:
            try:
                result = await self._do(command)
                state = Command.State.DONE
            except (CommandFailedError, ReconnectError, ReplayError) as refusal:
                result = {"detail": str(refusal)}
                if isinstance(refusal, CommandFailedError) and refusal.run is not None:
                    result["run"] = refusal.run
                state = Command.State.FAILED
            run = result.get("run") if command.action == Action.SYNC and state == Command.State.DONE else None
            after_run = run if isinstance(run, int) else None
            if await self._database.control(answer, self._lease, command.pk, state, result, after_run=after_run):
                return state

    async def _do(self, command: Command) -> dict[str, object]:
        match command.action:
            case Action.RECONNECT:
                return await self._reconnect()
            case Action.DISABLE:
                already = self._driver.state.mode is Mode.DISABLED
                await self._database.control(save_enabled, self._lease, enabled=False)
                await self._driver.disable()
                if already:
                    return {"detail": "The stream was closed already, and stays closed; polling goes on."}
                return {"detail": "The stream is closed and stays closed; polling goes on."}
            case Action.ENABLE:
                return await self._enable()
            case Action.SYNC:
                return _result_of(await self._syncs.sync_for(command.pk))
            case Action.APPROVE:
                return await self._approve(command)
            case Action.DISMISS:
                return await self._dismiss(command)
            case Action.REPLAY:
                return await self._replay(command)
            case _:  # one that only a newer release knows
                raise CommandFailedError(f"This version of the daemon does not know the action {command.action}.")

    async def _replay(self, command: Command) -> dict[str, object]:
        if "dead_letters" not in command.args:
            return await self._replayer.replay(int(command.args.get("dead_letter", 0)))
        replayed, problems = 0, []
        for dead_letter_id in command.args["dead_letters"]:
            try:
                await self._replayer.replay(int(dead_letter_id))
                replayed += 1
            except ReplayError as refusal:
                problems.append(f"Dead letter {dead_letter_id}: {refusal}")
        counts = f"{replayed} of {replayed + len(problems)} dead letters were replayed."
        detail = " ".join([counts, *problems[:_PROBLEMS_SHOWN]])
        if not replayed:
            raise ReplayError(detail)
        return {"detail": detail, "replayed": replayed, "failed": len(problems)}

    async def _reconnect(self) -> dict[str, object]:
        self._need_stream()
        if self._driver.state.mode is Mode.DISABLED:
            raise CommandFailedError("The stream is disabled. Enable it instead: that connects without delay.")
        failure = await self._driver.reconnect()
        if failure:
            raise CommandFailedError(f"The stream could not be opened: {failure}")
        return {"detail": "A new stream is open."}

    async def _enable(self) -> dict[str, object]:
        await self._database.control(save_enabled, self._lease, enabled=True)
        self._need_stream()
        return {"detail": await self._driver.enable()}

    def _need_stream(self) -> None:
        if not self._stream_wanted:
            raise CommandFailedError(
                "This daemon runs without the stream (--no-websocket or ATOM_SAAS_WS_ENABLED=false). "
                "Restart it with the stream."
            )

    async def _approve(self, command: Command) -> dict[str, object]:
        run_id = await self._open_run(command)
        skill_ids = await self._database.control(held_removals, run_id)
        self._approving.append(skill_ids)
        try:
            report = await self._syncs.sync_for(command.pk, approved=skill_ids)
            result = _result_of(report)
            if not report.clean:
                # An unclean sync cannot know what is still absent, so the approval has removed nothing.
                raise CommandFailedError(
                    f"The full sync was not clean: {report.unclean_reason}. The approval deleted nothing. "
                    f"Approve sync run {run_id} again.",
                    run=report.run_id,
                )
            await self._database.control(mark_approved, self._lease, run_id)
        finally:
            self._approving.remove(skill_ids)
        others = f" {report.held_count} other removals are on hold." if report.held_count else ""
        return {"detail": f"Sync run {report.run_id} deleted {report.progress.removed} skills.{others}", **result}

    async def _dismiss(self, command: Command) -> dict[str, object]:
        run_id = await self._open_run(command)
        skill_ids = await self._database.control(held_removals, run_id)
        # An approval under way, of this or another run, may delete the same skills.
        if not all(skill_ids.isdisjoint(approved) for approved in self._approving):
            raise CommandFailedError(
                f"Removals of sync run {run_id} are being approved. Read the result of that command before you dismiss."
            )
        kept = await self._database.control(dismiss, self._lease, run_id, by=command.requested_by)
        return {"detail": f"{kept} skills are kept although the marketplace does not list them.", "kept": kept}

    async def _open_run(self, command: Command) -> int:
        """Return the run that an approval or a dismissal is about. Raises `CommandFailedError` if it is decided."""

        def look(run_id: int) -> str:
            run = SyncRun.objects.filter(pk=run_id).first()
            return why_closed(run) if run is not None else f"There is no sync run {run_id}."

        run_id = int(command.args.get("run", 0))
        if problem := await self._database.control(look, run_id):
            raise CommandFailedError(problem)
        return run_id


def _counts(command: Command) -> bool:
    return is_by_agent(command) and command.action not in (Action.SYNC, Action.APPROVE)


def _result_of(report: SyncReport) -> dict[str, object]:
    """Return a full sync's answer to its command. Raise `CommandFailedError` if it failed."""
    if report.state == SyncRun.State.FAILED:
        raise CommandFailedError(f"The full sync failed: {report.error}", run=report.run_id)
    return {
        "run": report.run_id,
        "state": str(report.state),
        "created": report.progress.created,
        "updated": report.progress.updated,
        "removed": report.progress.removed,
        "held": report.held_count,
        "refused": report.refused,
    }
