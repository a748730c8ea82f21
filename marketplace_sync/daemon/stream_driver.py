"""Drive the connection machine: carry out its effects, and report to it what happened."""

import asyncio
import math
import random
from collections.abc import Callable
from typing import assert_never

import structlog
from structlog.contextvars import bind_contextvars

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.clocks import Clocks
from marketplace_sync.daemon.mailbox import Mailbox
from marketplace_sync.daemon.observer import DaemonObserver
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
    """Return the limits of the connection machine, from the settings."""
    return Limits(
        healthy_after=config.healthy_after,
        reconnect_delays=config.reconnect_delays,
        reconnect_jitter=config.reconnect_jitter,
        reconnect_attempts=config.reconnect_attempts,
        fallback_after_failures=config.fallback_after_failures,
        fallback_seconds=config.fallback_seconds,
    )


class ReconnectError(Exception):
    """There is nothing to reconnect; the text is the reason."""


class StreamDriver:
    """Own the stream's tasks and the state of the connection machine.

    `receive` gets each message in the read loop.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access,
        mailbox: Mailbox,
        observers: DaemonObserver,
        clocks: Clocks,
        *,
        receive: Receive,
    ) -> None:
        self._config = config
        self._access = access
        self._mailbox = mailbox
        self._observers = observers
        self._clock = clocks.monotonic
        self._wall = clocks.wall
        self._receive = receive
        self.state = ConnectionState(limits=limits_of(config))
        self._inbox: asyncio.Queue[Input] = asyncio.Queue()
        self._sent = self._taken = 0  # inputs put into the inbox, and taken from it
        self._attempts: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, Stream] = {}
        self._moved = asyncio.Event()

    def start(self, *, enabled: bool) -> None:
        """Begin to connect, unless the stream is disabled."""
        self._send(Started(enabled))

    def stop(self) -> None:
        """Close the stream for good; `run` returns when all that it had received is handed over."""
        self._send(StopRequested())

    def token_replaced(self) -> None:
        """Note that attempts from now on present another token."""
        self._send(TokenReplaced())

    async def reconnect(self) -> str:
        """Open a new stream as soon as the limit of attempts allows. Return "", or the reason why it is not open.

        Raise `ReconnectError` if no attempt is possible.
        """
        if not accepts_reconnect(self.state):
            raise ReconnectError(self.state.reason)
        before = self.state.attempt if self.state.mode is not Mode.CONNECTING else self.state.attempt - 1
        await self._decided(self._send(ReconnectRequested()))
        if self.state.mode is Mode.OPEN and self.state.attempt == before:
            limit, wait = self.state.limits.attempts_per_minute, math.ceil(slot_free_in(self.state, self._clock()))
            raise ReconnectError(
                f"The stream stays open as it is: {limit} connection attempts in the last minute are the marketplace's "
                f"limit. Reconnect again in {wait} s."
            )
        await self._until(lambda: self.state.attempt > before or self.state.mode in (Mode.DISABLED, Mode.STOPPED))
        number = self.state.attempt
        await self._until(lambda: self.state.attempt != number or self.state.mode is not Mode.CONNECTING)
        if self.state.attempt == number and self.state.mode is Mode.OPEN:
            return ""
        return self.state.reason or "another reconnect command came meanwhile"

    async def disable(self) -> None:
        """Close the stream and keep it closed; return when it is closed."""
        last = self.state.attempt
        await self._decided(self._send(DisableRequested()))
        # Not "is disabled": somebody may have enabled it again while the peer took its time to close.
        await self._until(lambda: all(number > last for number in self._attempts))

    async def enable(self) -> str:
        """Enable the stream. Return a sentence about its state after that."""
        before = self.state
        await self._decided(self._send(EnableRequested()))
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
        """Drive the machine until `stop`, and then until the last stream has handed over what it received."""
        async with asyncio.TaskGroup() as attempts:
            while self.state.mode is not Mode.STOPPED:
                event = await self._next_input()
                before = self.state
                self.state, effects = decide(before, event, now=self._clock(), draw=random.random())
                for effect in effects:
                    self._carry_out(effect, attempts)
                if self.state != before:
                    self._observers.connection_changed(before, self.state)
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

    def _send(self, event: Input) -> int:
        """Put `event` into the machine's inbox. Return its number, counted from 1."""
        self._inbox.put_nowait(event)
        self._sent += 1
        return self._sent

    async def _decided(self, number: int) -> None:
        """Wait until the machine has decided on the input of that number; a stopped machine decides no more."""
        await self._until(lambda: self._taken >= number or self.state.mode is Mode.STOPPED)

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
                self._mailbox.poll_now()
            case _:
                assert_never(effect)

    async def _attempt(self, number: int) -> None:
        """Own one connection from its first packet to its last."""
        bind_contextvars(connection=number)  # of this task alone
        try:
            report: Failed | Lost = Failed(number, "given up")
            token = self._access.token.now()
            try:
                stream = await Stream.open(self._config, self._access, wall=self._wall)
                self._streams[number] = stream
                self._observers.stream_opened(stream.server_offset)
                self._observers.token_checked(refused=False)
                self._send(Opened(number))
                log.info("stream_opened")
                report = Lost(number, "closed")
                await stream.run(self._receive)
            except UpstreamError as error:
                if error.refused_token:
                    self._observers.token_checked(refused=True)
                kind = Lost if number in self._streams else Failed
                report = kind(number, error.reason, error.refused_token, error.retry_after)
                log.warning("stream_lost" if kind is Lost else "stream_failed", reason=error.reason)
                if error.refused_token and self._access.token.look() != token:
                    # It may have been replaced a moment ago: the machine learns that before the refusal.
                    self._send(TokenReplaced())
            self._send(report)
        finally:
            self._streams.pop(number, None)
            self._attempts.pop(number, None)
            self._moved.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()
