"""Drives the connection machine: carries its effects out and tells it what happened."""

import asyncio
import math
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import assert_never

import structlog
from structlog.contextvars import bind_contextvars

from marketplace_sync.conf import SyncConfig
from marketplace_sync.engine.connection import decide
from marketplace_sync.engine.connection_state import (
    CloseStream,
    Connect,
    ConnectionState,
    DisableRequested,
    Effect,
    EnableRequested,
    Failed,
    Input,
    Limits,
    Lost,
    Mode,
    Opened,
    PollNow,
    ReconnectRequested,
    Started,
    StopRequested,
    Tick,
    TokenReplaced,
    accepts_reconnect,
    next_wake,
    slot_free_in,
)
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.errors import UpstreamError
from marketplace_sync.upstream.stream import Receive, Stream

log = structlog.get_logger(__name__)


def limits_of(config: SyncConfig) -> Limits:
    """The machine's figures, from the settings."""
    return Limits(
        healthy_after=config.healthy_after,
        reconnect_delays=config.reconnect_delays,
        reconnect_jitter=config.reconnect_jitter,
        reconnect_attempts=config.reconnect_attempts,
        fallback_after_failures=config.fallback_after_failures,
        fallback_seconds=config.fallback_seconds,
    )


class ReconnectError(Exception):
    """There is nothing to reconnect; the text says why."""


class StreamDriver:
    """Owns the stream's task and the machine's state.

    `receive` takes each message in the read loop; `poll` begins a pass at once; `changed` is
    called with the states before and after each decision that changed it; `token` with whether the token was refused,
    each time that the marketplace has looked at it.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access,
        *,
        receive: Receive,
        poll: Callable[[], None],
        changed: Callable[[ConnectionState, ConnectionState], None],
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        draw: Callable[[], float] = random.random,
        token: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._access = access
        self._receive = receive
        self._poll = poll
        self._changed = changed
        self._token = token
        self._clock = clock
        self._wall = wall
        self._draw = draw
        self.state = ConnectionState(limits=limits_of(config))
        # The marketplace's clock minus ours, as the newest connection told it.
        self.server_offset = timedelta(0)
        self._inbox: asyncio.Queue[Input] = asyncio.Queue()
        self._told = self._taken = 0
        self._attempts: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, Stream] = {}
        self._moved = asyncio.Event()

    def start(self, *, enabled: bool) -> None:
        self._tell(Started(enabled))

    def stop(self) -> None:
        """Close the stream for good; `run` returns when all that it had received is handed over."""
        self._tell(StopRequested())

    def token_replaced(self) -> None:
        """Attempts that begin from now on bring another token."""
        self._tell(TokenReplaced())

    async def reconnect(self) -> str:
        """A new stream, tried as soon as the limit of attempts allows. "" when it is open, else why it is not.

        Raises `ReconnectError`.
        """
        if not accepts_reconnect(self.state):
            raise ReconnectError(self.state.reason)
        before = self.state.attempt if self.state.mode is not Mode.CONNECTING else self.state.attempt - 1
        await self._decided(self._tell(ReconnectRequested()))
        if self.state.mode is Mode.OPEN and self.state.attempt == before:
            limit, wait = (
                self.state.limits.attempts_per_minute,
                math.ceil(slot_free_in(self.state, self._clock())),
            )
            raise ReconnectError(
                f"The stream stays as it is, open: {limit} connection attempts in the last minute are the "
                f"marketplace's limit. Ask again in {wait} s."
            )
        await self._until(lambda: self.state.attempt > before or self.state.mode in (Mode.DISABLED, Mode.STOPPED))
        number = self.state.attempt
        await self._until(lambda: self.state.attempt != number or self.state.mode is not Mode.CONNECTING)
        if self.state.attempt == number and self.state.mode is Mode.OPEN:
            return ""
        return self.state.reason or "another reconnect was asked for meanwhile"

    async def disable(self) -> None:
        """Close the stream and keep it closed; returns when it is."""
        last = self.state.attempt
        await self._decided(self._tell(DisableRequested()))
        # Not "is disabled": somebody may have enabled it again while the peer took its time to close.
        await self._until(lambda: all(number > last for number in self._attempts))

    async def enable(self) -> str:
        """Want the stream again, and say in a sentence how it stands then."""
        before = self.state
        await self._decided(self._tell(EnableRequested()))
        was = before.mode is not Mode.DISABLED and before.attempt == self.state.attempt
        return f"The stream is enabled{' already' if was else ''}; {self._standing()}"

    def _standing(self) -> str:
        state = self.state
        match state.mode:
            case Mode.OPEN:
                return "it is connected."
            case Mode.CONNECTING | Mode.IDLE:
                return "a connection attempt is under way."
            case Mode.DISABLED | Mode.STOPPED:
                return f"it is closed: {state.reason}."
            case Mode.SUSPENDED:
                return f"its attempts are used up: {state.reason}. Reconnect begins another one."
            case Mode.WAITING | Mode.POLLING:
                wait = max(0, math.ceil((state.next_attempt_at or 0.0) - self._clock()))
                when = f"The next attempt is in {wait} s; Reconnect begins one sooner."
                return f"it is not connected: {state.reason}. {when}"
        assert_never(state.mode)

    async def run(self) -> None:
        """Until `stop`, and then until the last stream has handed over what it had."""
        async with asyncio.TaskGroup() as attempts:
            while self.state.mode is not Mode.STOPPED:
                event = await self._next_input()
                before = self.state
                self.state, effects = decide(before, event, now=self._clock(), draw=self._draw())
                for effect in effects:
                    self._carry_out(effect, attempts)
                if self.state != before:
                    self._changed(before, self.state)
                self._moved.set()

    async def _next_input(self) -> Input:
        wake = next_wake(self.state)
        try:
            async with asyncio.timeout(None if wake is None else max(wake - self._clock(), 0.0)):
                event = await self._inbox.get()
        except TimeoutError:
            return Tick()
        self._taken += 1
        return event

    def _tell(self, event: Input) -> int:
        """Put `event` to the machine; its place in the order of all that it was told."""
        self._inbox.put_nowait(event)
        self._told += 1
        return self._told

    async def _decided(self, place: int) -> None:
        """Wait until the machine has decided on what it was told at `place`; a stopped one decides no more."""
        await self._until(lambda: self._taken >= place or self.state.mode is Mode.STOPPED)

    def _carry_out(self, effect: Effect, attempts: asyncio.TaskGroup) -> None:
        match effect:
            case Connect(attempt=number):
                self._attempts[number] = attempts.create_task(self._attempt(number), name=f"stream {number}")
            case CloseStream(attempt=number):
                if (stream := self._streams.get(number)) is not None:
                    attempts.create_task(stream.close(), name=f"close stream {number}")
                elif (attempt := self._attempts.get(number)) is not None:
                    attempt.cancel()
            case PollNow():
                self._poll()

    async def _attempt(self, number: int) -> None:
        """One connection from its first packet to its last."""
        bind_contextvars(connection=number)  # of this task alone
        try:
            report: Failed | Lost = Failed(number, "given up")
            token = self._access.token.now()
            try:
                stream = await Stream.open(self._config, self._access, wall=self._wall)
                self._streams[number] = stream
                self.server_offset = stream.server_offset
                self._token(False)
                self._tell(Opened(number))
                log.info("stream_opened")
                report = Lost(number, "closed")
                await stream.run(self._receive)
            except UpstreamError as fault:
                if fault.refused_token:
                    self._token(True)
                kind = Lost if number in self._streams else Failed
                report = kind(number, fault.reason, fault.refused_token, fault.retry_after)
                log.warning("stream_lost" if kind is Lost else "stream_failed", reason=fault.reason)
                if fault.refused_token and self._access.token.look() != token:
                    # It may have been replaced a moment ago: the machine hears of that before the refusal.
                    self._tell(TokenReplaced())
            self._tell(report)
        finally:
            self._streams.pop(number, None)
            self._attempts.pop(number, None)
            self._moved.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()
