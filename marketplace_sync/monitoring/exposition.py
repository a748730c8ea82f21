"""The text of `/metrics`: what the tables say, and after it what the living daemon has written of itself.

The first part is worked out at each scrape and so is true whatever has died; every process gives the same. The second
is the daemon's own, at most some seconds old, and is left out once that daemon is no more: no series is better than
one that tells of the past.
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
    """All there is to scrape."""
    registry = CollectorRegistry()
    registry.register(_Tables(facts))
    return generate_latest(registry).decode() + facts.daemon_text


def daemon_values(facts: Facts, *names: str) -> Mapping[tuple[str, str], float]:
    """Of the daemon's own metrics these gauges: by name and the first label's value, "" without one."""
    wanted = {f"{_PREFIX}_{name}": name for name in names}
    return {
        (wanted[sample.name], next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(facts.daemon_text)
        if family.name in wanted
        for sample in family.samples
    }


class _Tables(Collector):
    """What the tables say, as metrics."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        facts = self._facts
        row = facts.status.row
        yield _gauge("daemon_up", "1: a daemon holds the lease and has been heard of within 15 s", facts.status.alive)
        info = GaugeMetricFamily(f"{_PREFIX}_daemon_info", "Who holds the lease, as host:pid", labels=("name",))
        if facts.status.alive:
            info.add_metric((facts.status.daemon,), 1)
        yield info
        yield _gauge("lease_epoch", "How many owners the lease has had; it grows with each", facts.epoch)
        yield _gauge("standby_daemons", "Daemons that wait for the lease", facts.status.standby)
        yield _time("daemon_metrics_timestamp_seconds", "When the daemon wrote its metrics", facts.daemon_written_at)

        state = GaugeMetricFamily(f"{_PREFIX}_connection_state", "1: the connection's state now", labels=("state",))
        for value in WebSocketState.State.values:
            state.add_metric((value,), row.state == value)
        yield state
        yield _gauge("connection_enabled", "0: a person or an agent has disabled the stream", row.enabled)
        yield _gauge(
            "connection_fallback",
            "1: polling only, for the stream keeps failing",
            facts.status.alive and row.fallback_to_polling,
        )
        yield _gauge(
            "connection_consecutive_failures", "Attempts since the last healthy connection", row.consecutive_failures
        )
        yield _time("last_connected_timestamp_seconds", "When the stream was opened last", row.last_connected_at)
        yield _time("last_message_timestamp_seconds", "When the last stream message came", row.last_message_at)

        yield _time("last_clean_sync_timestamp_seconds", "When the last clean sync ended", facts.clean_sync_at)
        yield _gauge("held_runs", "Passes whose removals wait for a person", facts.held_runs)
        yield _gauge("held_removals", "Removals that wait for a person", facts.held_removals)
        yield _gauge("dead_letters_open", "Dead letters that nobody has settled", facts.open_dead_letters)

        changes = CounterMetricFamily(f"{_PREFIX}_feed_changes", "Changes told by the feed; its newest number")
        changes.add_metric((), facts.feed_seq)
        yield changes
        yield _gauge("feed_processes", "Web processes that serve clients of the feed", facts.feed_servers)
        yield _gauge("feed_clients", "Clients that follow the feed, of all web processes", facts.feed_clients)
        yield _gauge("feed_client_lag_changes", "Changes by which the last of them is behind", facts.feed_lag)

        commands = GaugeMetricFamily(
            f"{_PREFIX}_commands_open", "Requests not answered yet, by action and state", labels=("action", "state")
        )
        for action, stage in product(Command.Action.values, _OPEN):
            commands.add_metric((action, stage), facts.open_commands.get((action, stage), 0))
        yield commands


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", told, value=float(value))


def _time(name: str, told: str, at: datetime | None) -> Metric:
    return _gauge(name, f"{told}; 0: never", at.timestamp() if at is not None else 0)
