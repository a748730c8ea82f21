"""The connection machine: every input in every mode."""

from dataclasses import fields
from typing import get_args

import pytest

from marketplace_sync.engine.connection import TABLE as CONNECTION_TABLE
from marketplace_sync.engine.connection_state import (
    CloseStream,
    Connect,
    ConnectionState,
    DisableRequested,
    Effect,
    EnableRequested,
    Failed,
    Input,
    Lost,
    Mode,
    Opened,
    PollNow,
    ReconnectRequested,
    Started,
    StopRequested,
    Tick,
    TokenReplaced,
)
from marketplace_sync.tests.support.connection_machine import reach

# The next mode for each input and mode. Capitals stand for modes: Connecting Open Waiting Polling Disabled Stopped; "."
# changes nothing and has no effect, "x" closes the reported stream and changes nothing else, "X" closes the attempt
# or stream under way. Connecting has the effect Connect with the next number, Polling has PollNow.
# The inputs named "old" are reports of an attempt before the latest.
TABLE = """
                  idle  connecting  open  waiting  polling  suspended  disabled  stopped
start             C     .           .     .        .        .          .         .
start-disabled    D     .           .     .        .        .          .         .
opened            x     O           .     x        x        x          x         x
opened-old        x     x           x     x        x        x          x         x
failed            .     W           W     .        .        .          .         .
failed-refused    .     P           P     .        .        .          .         .
failed-429        .     W           W     .        .        .          .         .
failed-old        .     .           .     .        .        .          .         .
lost              .     W           W     .        .        .          .         .
lost-refused      .     P           P     .        .        .          .         .
lost-old          .     .           .     .        .        .          .         .
tick-early        .     .           .     .        .        .          .         .
tick-due          .     .           O     C        C        .          .         .
reconnect         .     .           XC    C        C        C          .         .
token             .     .           .     .        C        .          .         .
disable           D     XD          XD    D        D        D          .         .
enable            .     .           .     .        .        .          C         .
stop              S     XS          XS    S        S        S          S         .
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(Mode(mode), name, cell) for name, *cells in ROWS for mode, cell in zip(HEAD, cells, strict=True)]
MODES = {mode.name[0]: mode for mode in Mode if mode not in (Mode.IDLE, Mode.SUSPENDED)}


def input_named(name: str, attempt: int) -> Input:
    name, _, variant = name.partition("-")
    attempt -= variant == "old"
    refused, retry_after = variant == "refused", 7.0 if variant == "429" else None
    inputs: dict[str, Input] = {
        "start": Started(enabled=variant != "disabled"),
        "opened": Opened(attempt),
        "failed": Failed(attempt, "no", refused, retry_after),
        "lost": Lost(attempt, "no", refused, retry_after),
        "tick": Tick(),
        "token": TokenReplaced(),
        "reconnect": ReconnectRequested(),
        "disable": DisableRequested(),
        "enable": EnableRequested(),
        "stop": StopRequested(),
    }
    return inputs[name]


@pytest.mark.parametrize(("mode", "name", "cell"), CELLS, ids=lambda value: str(value))
def test_every_input_in_every_mode_leads_where_the_table_shows(mode: Mode, name: str, cell: str) -> None:
    machine = reach(mode)
    before = machine.state
    event = input_named(name, before.attempt)
    if name == "tick-due":
        machine.now += 10_000
    effects = machine.send(event)

    expected: list[Effect] = []
    if cell == "x":
        assert isinstance(event, Opened)
        expected.append(CloseStream(event.attempt))
    if cell[0] == "X":
        expected.append(CloseStream(before.attempt))
    target = MODES.get(cell[-1])
    if target is Mode.CONNECTING:
        expected.append(Connect(before.attempt + 1))
    if target is Mode.POLLING:
        expected.append(PollNow("no"))
    assert list(effects) == expected
    assert machine.state.mode is (target or mode)
    noted = {(Mode.CONNECTING, "reconnect"), (Mode.CONNECTING, "token"), (Mode.OPEN, "token")}
    if cell in (".", "x") and (mode, name) not in noted:
        assert machine.state == before


def test_the_tables_are_complete() -> None:
    assert set(CONNECTION_TABLE) == set(get_args(Input))
    assert {len(row) for row in CONNECTION_TABLE.values()} == {len(Mode)}
    assert {(mode, name.split("-")[0]) for mode, name, _ in CELLS} == {
        (mode, name)
        for mode in Mode
        for name in ("start", "opened", "failed", "lost", "tick", "token", "reconnect", "disable", "enable", "stop")
    }
    assert len(fields(ConnectionState)) == 15  # a new field needs a look at assert_consistent
