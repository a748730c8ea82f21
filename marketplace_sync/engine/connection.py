"""The connection machine: it takes what happened to the stream, and decides what to do next.

Rules, from docs/protocol.md, "What the client does":

 1. One attempt at a time. The start, a timer, a person, an agent or a new token begins one.
 2. A connection is healthy once it has lasted for `healthy_after`. Only that resets the counters to 0. To be accepted
    resets nothing, so a server that accepts and drops is treated like one that refuses.
 3. An attempt that ends without having been healthy counts as one failure, when it ends.
 4. Before a retry: a wait of `reconnect_delays[retries]` (the last one from there on), and up to `reconnect_jitter` of
    it in addition, so that the clients of a restarted server do not all return in the same instant. After a healthy
    connection the first retry waits the first delay, whichever side closed it and with whatever code.
 5. From failure number `fallback_after_failures` on: polling only for `fallback_seconds`, beginning with a full sync
    now; then one attempt. Until a connection is healthy, or a person or agent reconnects, each failed attempt begins
    another such period. An attempt that opens interrupts the period; it does not end this rule.
 6. A refused token leads to rule 5 directly: a second later the same token would be refused again. A new token gets one
    attempt without waiting, with the counters reset, as if a person had reconnected. If it comes while an attempt is
    under way or a stream is open, it waits for how that ends: a refusal, or any failure since a refusal, is the old
    token's.
 7. A `Retry-After` lengthens the wait, up to `fallback_seconds`; it never shortens one.
 8. At failure number `reconnect_attempts` the stream is suspended, with a full sync now, until a person or agent
    reconnects. This takes precedence over rules 4 to 7, except for the new token of rule 6.
 9. A reconnect by a person or agent begins an attempt without waiting and resets the counters; an attempt under way
    serves. Disabling closes the stream and forgets the counters; enabling connects without waiting.
10. Stopped is final.
11. At most `attempts_per_minute` attempts begin in any `ATTEMPT_WINDOW`, whatever begins them. A further attempt waits
    until the limit allows it, in mode WAITING or POLLING. An open stream is not closed to wait: a reconnect that the
    limit forbids changes nothing, and `slot_free_in` returns the seconds until it is allowed. If a configured delay is
    below 1 s, or the fallback period is below 60 s, retries do not count: the operator chose to exceed the limit.

Regular polling does not depend on these rules; `PollNow` only requests one additional full sync.

How it works. `decide` takes the state and one input, and returns the next state and the effects, to be carried out in
their order. Its driver keeps a timer at `next_wake(state)` and sends a `Tick` when it fires. An early, late or
superfluous Tick does no harm, because due times are compared with `now`.

Attempts are numbered. `Connect` gives out a number, and each report about that attempt (`Opened`, `Failed`, `Lost`)
carries it. The stream that the attempt opens keeps the number. So if a reconnect is requested and the old stream's
`Lost` arrives after the new `Connect`, it has the old number and is ignored: the machine gave that attempt up when it
asked to close it. One late report needs an answer: `Opened` of an attempt that was given up. That stream is closed, by
its number, in every mode.

To acknowledge a reconnect (law 11), note `state.attempt` after the `ReconnectRequested`. The reconnect is done when the
mode is OPEN with that number. It has failed, for `state.reason`, when the mode is neither OPEN nor CONNECTING, or when
the number has changed. Rule 11 may delay the new number; if the mode stays OPEN, no new number comes. Refuse a
reconnect where `accepts_reconnect(state)` is false.
"""

from marketplace_sync.engine.connection_state import (
    ConnectionState,
    Decision,
    DisableRequested,
    EnableRequested,
    Failed,
    Input,
    Lost,
    Mode,
    Opened,
    ReconnectRequested,
    Started,
    StopRequested,
    Tick,
    TokenReplaced,
)
from marketplace_sync.engine.connection_transitions import (
    Transition,
    be_healthy,
    close_old,
    disable,
    enable,
    ended,
    ignore,
    note_token,
    opened,
    reconnect,
    reopen,
    reset,
    retry,
    start,
    stop,
    try_token,
)

# One row per input, one column per mode.
# fmt: off
TABLE: dict[type[Input], tuple[Transition, ...]] = {
    #                    IDLE        CONNECTING  OPEN        WAITING     POLLING     SUSPENDED   DISABLED    STOPPED
    Started:            (start,      ignore,     ignore,     ignore,     ignore,     ignore,     ignore,     ignore),
    Opened:             (close_old,  opened,     opened,     close_old,  close_old,  close_old,  close_old,  close_old),
    Failed:             (ignore,     ended,      ended,      ignore,     ignore,     ignore,     ignore,     ignore),
    Lost:               (ignore,     ended,      ended,      ignore,     ignore,     ignore,     ignore,     ignore),
    Tick:               (ignore,     ignore,     be_healthy, retry,      retry,      ignore,     ignore,     ignore),
    TokenReplaced:      (ignore,     note_token, note_token, ignore,     try_token,  try_token,  ignore,     ignore),
    ReconnectRequested: (ignore,     reset,      reopen,     reconnect,  reconnect,  reconnect,  ignore,     ignore),
    DisableRequested:   (disable,    disable,    disable,    disable,    disable,    disable,    ignore,     ignore),
    EnableRequested:    (ignore,     ignore,     ignore,     ignore,     ignore,     ignore,     enable,     ignore),
    StopRequested:      (stop,       stop,       stop,       stop,       stop,       stop,       stop,       ignore),
}
# fmt: on
COLUMN = {mode: number for number, mode in enumerate(Mode)}


def decide(state: ConnectionState, event: Input, *, now: float, draw: float) -> Decision:
    """Return the next state and the effects. Every input has an answer in every mode, and none raises.

    `now` is a monotonic clock in seconds. `draw` is a new random number from 0 to 1 for each call, for the jitter.
    """
    return TABLE[type(event)][COLUMN[state.mode]](state, event, now, draw)
