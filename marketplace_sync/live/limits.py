"""The intervals, time-outs and sizes of the live feed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLimits:
    """Durations in seconds."""

    # Between two reads without hints: a change waits for half of it on average.
    poll: float = 0.25
    # Between two reads when hints come densely: 100 changes per second are 40 messages to each client, not 100.
    gap: float = 0.025
    # A client gets a heartbeat after this time without a message. Credentials are checked as often.
    heartbeat: float = 15.0
    # A client that has not taken a message within this time reads too slowly.
    send_timeout: float = 10.0
    # How long a slow client may take for the close frame before its connection is aborted.
    close_timeout: float = 5.0
    # Between two attempts at a database that does not answer.
    retry: float = 1.0
    # How often a process saves the number of its clients, for the metrics.
    metrics_interval: float = 5.0
    # Changes per query: 200 of the largest size, 1 MiB each, still fit into memory.
    page: int = 200
    # What is kept of the latest changes, at most.
    recent_rows: int = 10_000
    recent_chars: int = 16 * 1024 * 1024
