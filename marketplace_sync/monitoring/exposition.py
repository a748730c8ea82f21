"""The text of `/metrics`: metrics computed from the tables, followed by those that the running daemon has written.

The first part is computed at each scrape, so it is true whatever has crashed, and every process serves the same. The
second part is at most some seconds old. It is left out once the daemon has stopped, because no series is better than
an outdated one.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import product

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from marketplace_sync.models import Command, WebSocketState
from marketplace_sync.monitoring.facts import Facts

_PREFIX = "atom_mirror"
_OPEN = (Command.State.PENDING, Command.State.ACCEPTED)


def exposition(facts: Facts) -> str:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Tables(facts))
    return generate_latest(registry).decode() + facts.daemon_text


def daemon_values(facts: Facts, *names: str) -> Mapping[tuple[str, str], float]:
    """Return these gauges of the daemon's metrics, by name and value of the first label ("" without a label)."""
    wanted = {f"{_PREFIX}_{name}": name for name in names}
    return {
        (wanted[sample.name], next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(facts.daemon_text)
        if family.name in wanted
        for sample in family.samples
    }


class _Tables(Collector):
    """The metrics that are computed from the tables."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        yield from _daemon(self._facts)
        yield from _connection(self._facts)
        yield from _syncs(self._facts)
        yield from _feed(self._facts)
        yield _commands(self._facts)


def _daemon(facts: Facts) -> Iterable[Metric]:
    yield _gauge(
        "daemon_up", "1 if a daemon owns the lease and sent a heartbeat within the last 15 s", facts.status.alive
    )
    info = GaugeMetricFamily(f"{_PREFIX}_daemon_info", "Owner of the lease, as host:pid", labels=("name",))
    if facts.status.alive:
        info.add_metric((facts.status.daemon,), 1)
    yield info
    yield _gauge("lease_epoch", "Number of the lease's owner; it grows with each new owner", facts.epoch)
    yield _gauge("standby_daemons", "Daemons that wait for the lease", facts.status.standby)
    yield _time(
        "daemon_metrics_timestamp_seconds", "Time at which the daemon wrote its metrics", facts.daemon_written_at
    )


def _connection(facts: Facts) -> Iterable[Metric]:
    row = facts.status.row
    state = GaugeMetricFamily(
        f"{_PREFIX}_connection_state", "1 for the connection's current state, 0 for the others", labels=("state",)
    )
    for value in WebSocketState.State.values:
        state.add_metric((value,), row.state == value)
    yield state
    yield _gauge("connection_enabled", "0 if a person or an agent has disabled the stream", row.enabled)
    yield _gauge(
        "connection_fallback",
        "1 while the mirror only polls because the stream keeps failing",
        facts.status.alive and row.fallback_to_polling,
    )
    yield _gauge(
        "connection_consecutive_failures",
        "Failed attempts since the last healthy connection",
        row.consecutive_failures,
    )
    yield _time("last_connected_timestamp_seconds", "Time of the last successful connect", row.last_connected_at)
    yield _time("last_message_timestamp_seconds", "Time of the last stream message", row.last_message_at)


def _syncs(facts: Facts) -> Iterable[Metric]:
    yield _time(
        "last_clean_sync_timestamp_seconds", "Time at which the last clean full sync ended", facts.clean_sync_at
    )
    yield _gauge("held_runs", "Full syncs whose removals are on hold", facts.held_runs)
    yield _gauge("held_removals", "Removals on hold, which wait for approval", facts.held_removals)
    yield _gauge("dead_letters_open", "Dead letters that are neither replayed nor discarded", facts.open_dead_letters)


def _feed(facts: Facts) -> Iterable[Metric]:
    changes = CounterMetricFamily(f"{_PREFIX}_feed_changes", "Changes in the feed since it began; its newest number")
    changes.add_metric((), facts.feed_seq)
    yield changes
    yield _gauge("feed_processes", "Web processes that serve clients of the feed", facts.feed_servers)
    yield _gauge("feed_clients", "Clients of the feed, of all web processes", facts.feed_clients)
    yield _gauge("feed_client_lag_changes", "Changes by which the slowest client is behind", facts.feed_lag)


def _commands(facts: Facts) -> Metric:
    commands = GaugeMetricFamily(
        f"{_PREFIX}_commands_open",
        "Commands without an answer yet, by action and state",
        labels=("action", "state"),
    )
    for action, stage in product(Command.Action.values, _OPEN):
        commands.add_metric((action, stage), facts.open_commands.get((action, stage), 0))
    return commands


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", help_text, value=float(value))


def _time(name: str, help_text: str, at: datetime | None) -> Metric:
    return _gauge(name, f"{help_text}; 0: never", at.timestamp() if at is not None else 0)
