"""How often, how long and how much: the figures of the live feed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLimits:
    """Durations in seconds."""

    # Without hints this is what a change waits for: half of it on average.
    poll: float = 0.25
    # Between two reads when hints come thick: 100 changes a second are 40 messages to each client, not 100.
    gap: float = 0.025
    # Said to a client to which nothing else was; also how soon a revoked key or an ended session is noticed.
    heartbeat: float = 15.0
    # A client that has not taken a message by then reads too slowly.
    taken_within: float = 10.0
    # How long it may still take the reason before the connection is cut.
    farewell: float = 5.0
    # A database that does not answer is asked again after this.
    retry: float = 1.0
    # How often a process says how many clients it serves, for the metrics.
    census: float = 5.0
    # Changes a query: 200 of the largest possible, 1 MiB each, still fit into memory.
    page: int = 200
    # What the ring holds at most.
    ring_rows: int = 10_000
    ring_chars: int = 16 * 1024 * 1024
