"""The tables behind `/metrics`: the daemon and web processes write them, and the process that answers reads them."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Count

from marketplace_sync.mirror.clock import database_now, within
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import AuditRow, Category, DaemonMetrics, FeedServer, Skill

# A web process with subscribers writes its row every few seconds; without that for this long it is no longer counted.
FEED_SERVER_SECONDS = 30.0
# An audit row gets its time before its commit: rows of the last few seconds may not be visible yet.
_AUDIT_SETTLES = timedelta(seconds=5)


def save_daemon_metrics(lease: Lease, render: Callable[[], str]) -> None:
    """Write the text that `render` returns. Raises `LeaseLostError`."""
    text = render()
    with lease.writing() as head:
        columns = {"epoch": lease.epoch, "text": text, "written_at": head.now}
        if not DaemonMetrics.objects.filter(pk=1).update(**columns):
            DaemonMetrics.objects.create(pk=1, **columns)


def catalogue_size() -> tuple[int, int]:
    """Return how many skills and categories the mirror has. Counting 100,000 takes about 20 ms: not at every scrape."""
    return Skill.objects.count(), Category.objects.count()


def decided_since(since: datetime | None) -> tuple[datetime, Counter[str]]:
    """Count management decisions after `since`, by outcome; also return the `since` of the next call.

    `since` `None`: counting begins now, with no decisions.
    """
    until = database_now() - _AUDIT_SETTLES
    if since is None:
        return until, Counter()
    if until <= since:  # the clock was set back
        return until, Counter()
    rows = AuditRow.objects.filter(at__gt=since, at__lte=until).order_by()
    return until, Counter(dict(rows.values_list("outcome").annotate(Count("id"))))


def save_feed_server(name: str, clients: int, lag: int) -> None:
    """Write how many subscribers this process serves, and by how many changes the slowest of them is behind."""
    now = database_now()
    FeedServer.objects.exclude(within("seen_at", now, FEED_SERVER_SECONDS)).delete()
    columns = {"clients": clients, "lag": lag, "seen_at": now}
    FeedServer.objects.update_or_create(name=name, defaults=columns)


def forget_feed_server(name: str) -> None:
    """Delete the row of a process that no longer serves subscribers."""
    FeedServer.objects.filter(name=name).delete()
