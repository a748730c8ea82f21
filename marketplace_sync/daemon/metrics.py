"""Count and measure the daemon's own work, for Prometheus.

Counters belong to this process and begin at 0 with it: Prometheus takes that for the restart it is. The totals of the
status row, which continue after a restart, are no such counters: a kill -9 sets them back by up to a second, and a
counter that falls from 1000 to 990 counts as 990 more. Every label value is one of ours, whatever the marketplace
sends, and every series exists from the start.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TypeVar

import prometheus_client as prometheus
from prometheus_client.registry import Collector

from marketplace_sync.daemon.intake import TOTAL_OF
from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.writer import Committed
from marketplace_sync.engine.connection_state import ConnectionState, Mode
from marketplace_sync.mirror.arrived import Effect, Event, Item, RefusedInput
from marketplace_sync.models import AuditRow, Command, DeadLetter, SyncRun, WebSocketState
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.message_types import BY_NAME, type_of
from marketplace_sync.protocol.refusals import Code, Refusal
from marketplace_sync.upstream.market import CATEGORIES, HEALTH, SKILL, SKILLS

M = TypeVar("M", prometheus.Counter, prometheus.Gauge, prometheus.Histogram)

PREFIX = "atom_mirror"

_OTHER = "other"
_OUTCOMES = (*sorted(set(TOTAL_OF.values())), "shed")
_SYNC_OUTCOMES = ("clean", "unclean", "degraded", "held", "failed")
_SYNC_EFFECTS = ("created", "updated", "removed", "unchanged", "stale", "refused")
# What docs/protocol.md names, and no answer at all; others are counted by their hundred.
_STATUSES = ("200", "400", "401", "403", "404", "429", "500", "503", "timed_out", "unreachable")
_HUNDREDS = ("2xx", "3xx", "4xx", "5xx", _OTHER)
_ENDED = (Command.State.DONE, Command.State.FAILED, Command.State.EXPIRED)

_RECENT_SECONDS = 60.0


class Metrics(DaemonObserver):
    """The metrics of one daemon. No method waits; most are called once per batch, in the event loop.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._registry = prometheus.CollectorRegistry()
        self._recent_lags: deque[tuple[int, float]] = deque()  # by second of the clock, the least of each
        self._lost: Counter[tuple[str, str]] = Counter()  # by type and outcome, since the last `settle`
        self._declare_stream_metrics()
        self._declare_sync_metrics()
        self._declare_gauges()
        prometheus.ProcessCollector(namespace=f"{PREFIX}_daemon", registry=self._registry)

    def _declare_stream_metrics(self) -> None:
        self.received = self._counter("messages_received", "Stream messages received, heartbeats aside")
        self._messages = self._counter(
            "messages", "Stream messages by type and outcome", type=(*BY_NAME, _OTHER),
            outcome=_OUTCOMES,
        )  # fmt: skip
        self._dead_letters = self._counter(
            "dead_letters", "Input that could not be applied, by source and reason", source=DeadLetter.Source.values,
            code=[code.value for code in Code],
        )  # fmt: skip
        self._lag = self._histogram(
            "lag_seconds", "From the marketplace's time of a change to its commit here; one change of each batch",
            (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
        )  # fmt: skip
        self._lag_recent = self._gauge(
            "lag_recent_seconds",
            "The least lag of the last minute: every change was at least as late; 0: there was none",
        )
        self._states = self._counter(
            "connection_state_changes", "Changes of the connection's state, by the new one",
            state=WebSocketState.State.values,
        )  # fmt: skip
        self._attempts = self._counter(
            "connection_attempts", "Attempts to open the stream, by outcome", outcome=("opened", "failed")
        )
        self._refused = self._gauge(
            "token_refused",
            "1: the marketplace refused the token last time",
            interface=("stream", "api"),
        )

    def _declare_sync_metrics(self) -> None:
        self._batch_items = self._histogram("batch_items", "Items per batch", (1, 3, 10, 30, 100, 300, 1000))
        self._batch_seconds = self._histogram(
            "batch_duration_seconds", "Time to apply a batch, its wait for the database included",
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )  # fmt: skip
        self._syncs = self._counter("syncs", "Full syncs by outcome", outcome=_SYNC_OUTCOMES)
        self._sync_seconds = self._histogram(
            "sync_duration_seconds", "Time of a full sync", (0.5, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600)
        )
        self._sync_skills = self._counter("sync_skills", "Skills by what full syncs did to them", effect=_SYNC_EFFECTS)
        self._sync_pages = self._counter("sync_pages", "Pages that full syncs read")
        self._requests = self._counter(
            "requests", "Requests to the marketplace by path and status", path=(SKILLS, SKILL, CATEGORIES, HEALTH),
            status=(*_STATUSES, *_HUNDREDS),
        )  # fmt: skip
        self._request_seconds = self._histogram(
            "request_duration_seconds", "Time of a request to the marketplace until the whole answer was read",
            (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30), path=(SKILLS, SKILL, CATEGORIES, HEALTH),
        )  # fmt: skip
        self._commands = self._counter(
            "commands_ended", "Commands of people and agents, by action and final state", action=Command.Action.values,
            state=_ENDED,
        )  # fmt: skip
        self._actions = self._counter(
            "actions", "Management decisions in the audit, by outcome, some seconds behind",
            outcome=AuditRow.Outcome.values,
        )  # fmt: skip

    def _declare_gauges(self) -> None:
        self.queue_items = self._gauge("queue_items", "Items received and not committed yet")
        self.queue_bytes = self._gauge("queue_bytes", "Size of the queued stream messages")
        self.queue_limit_bytes = self._gauge("queue_limit_bytes", "Size beyond which messages are shed")
        self.budget_left = self._gauge("request_budget_left", "Requests that could be sent now; +Inf: no limit")
        self.skills = self._gauge("catalogue_skills", "Skills in the mirror, counted some seconds ago")
        self.categories = self._gauge("catalogue_categories", "Categories in the mirror, counted some seconds ago")
        self.sync_interval = self._gauge("sync_interval_seconds", "Time between two full syncs, by the settings")
        self.database_retries = self._counter("database_retries", "Calls to the database that had to be tried again")

    def state_changed(self, state: WebSocketState.State) -> None:
        self._states.labels(state).inc()

    def connection_changed(self, before: ConnectionState, after: ConnectionState) -> None:
        """Count the attempts that have ended."""
        if before.mode is Mode.CONNECTING and (after.mode is not Mode.CONNECTING or after.attempt != before.attempt):
            self._attempts.labels("opened" if after.mode is Mode.OPEN else "failed").inc()

    def token_checked(self, *, refused: bool) -> None:
        self._refused.labels("stream").set(refused)

    def lost(self, event: Change | Refusal, outcome: str) -> None:
        """Count a message that reached no batch: `shed`, or `rejected` if there was no room for its dead letter."""
        # In a flood this is called 20,000 times per second, in the read loop. So the intake calls it without the list
        # of observers, and it only adds to a dictionary.
        self._lost[_type_of(event), outcome] += 1

    def committed(self, batch: Committed) -> None:
        types = [_type_of(item.refusal if isinstance(item, RefusedInput) else item.event) for item in batch.items]
        for (kind, effect), count in Counter(zip(types, batch.effects, strict=True)).items():
            self._messages.labels(kind, TOTAL_OF[effect]).inc(count)

    def lags_measured(self, lags: Sequence[float]) -> None:
        """Observe the first change of the batch, which waited longest."""
        lag = lags[0]
        self._lag.observe(lag)
        second = int(self._clock())
        if not self._recent_lags or self._recent_lags[-1][0] != second:
            self._recent_lags.append((second, lag))
        self._recent_lags[-1] = (second, min(lag, self._recent_lags[-1][1]))

    def written(self, items: Sequence[Item], effects: Sequence[Effect], seconds: float) -> None:
        self._batch_items.observe(len(items))
        self._batch_seconds.observe(seconds)
        if Effect.REFUSED in effects:
            for item in items:
                if isinstance(item, RefusedInput):
                    self._dead_letters.labels(item.source, item.refusal.code).inc()

    def answered(self, template: str, status: str, seconds: float) -> None:
        """Count one try of a request over HTTP. `status`: see `MarketClient.requests`."""
        known = status if status in _STATUSES else f"{status[:1]}xx"
        self._requests.labels(template, known if known in (*_STATUSES, *_HUNDREDS) else _OTHER).inc()
        self._request_seconds.labels(template).observe(seconds)
        if status in ("401", "403"):
            self._refused.labels("api").set(1)
        elif status in ("200", "404"):
            self._refused.labels("api").set(0)

    def sync_ended(self, report: SyncReport, seconds: float) -> None:
        outcome = str(report.state)
        if report.state is SyncRun.State.DONE:
            outcome = "clean" if report.clean else "unclean"
        self._syncs.labels(outcome).inc()
        self._sync_seconds.observe(seconds)
        self._sync_pages.inc(report.progress.pages_done)
        for effect in _SYNC_EFFECTS:
            self._sync_skills.labels(effect).inc(getattr(report.progress, effect))

    def command_ended(self, action: str, state: Command.State) -> None:
        if action in Command.Action.values:
            self._commands.labels(action, state).inc()

    def decided(self, outcomes: Mapping[str, int]) -> None:
        """Count management decisions since the last call, by outcome."""
        for outcome, count in outcomes.items():
            self._actions.labels(outcome).inc(count)

    def settle(self) -> None:
        """Bring up to date what is counted on the side; call it before each `render`."""
        for (kind, outcome), count in self._lost.items():
            self._messages.labels(kind, outcome).inc(count)
        self._lost.clear()
        while self._recent_lags and self._recent_lags[0][0] < self._clock() - _RECENT_SECONDS:
            self._recent_lags.popleft()
        self._lag_recent.set(min((lag for _, lag in self._recent_lags), default=0.0))

    def render(self) -> str:
        """Return all metrics in Prometheus' exposition format. Safe to call in another thread."""
        return prometheus.generate_latest(_WithoutCreated(self._registry)).decode()

    def _counter(self, name: str, help: str, **labels: Iterable[str]) -> prometheus.Counter:
        counter = prometheus.Counter(f"{PREFIX}_{name}", help, tuple(labels), registry=self._registry)
        return _initialized(counter, labels)

    def _gauge(self, name: str, help: str, **labels: Iterable[str]) -> prometheus.Gauge:
        gauge = prometheus.Gauge(f"{PREFIX}_{name}", help, tuple(labels), registry=self._registry)
        return _initialized(gauge, labels)

    def _histogram(
        self, name: str, help: str, buckets: Sequence[float], **labels: Iterable[str]
    ) -> prometheus.Histogram:
        histogram = prometheus.Histogram(
            f"{PREFIX}_{name}", help, tuple(labels), buckets=buckets, registry=self._registry
        )
        return _initialized(histogram, labels)


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which the text format would show as one more gauge per counter."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[prometheus.Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _initialized(metric: M, labels: Mapping[str, Iterable[str]]) -> M:
    """Return the metric with every series that it can have, at 0."""
    for values in product(*labels.values()) if labels else ():
        metric.labels(*values)
    return metric


def _type_of(event: Event | Refusal) -> str:
    """Return the message's type, one of five words; a type unknown to us is `other`."""
    if isinstance(event, Refusal):
        return event.kind if event.kind in BY_NAME else _OTHER
    return type_of(event).name if isinstance(event, Change) else _OTHER
