"""What `/metrics` is made of: written by the daemon and by web processes, read by whichever of these is asked."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Count

from marketplace_sync.mirror.clock import database_now, within
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import AuditRow, Category, DaemonMetrics, FeedServer, Skill

# A web process that serves clients says so every few seconds; after this it is counted no more.
FEED_SERVER_SECONDS = 30.0
# An audit row has its time before it is committed: one of the last few seconds may not be there to be seen yet.
_AUDIT_SETTLES = timedelta(seconds=5)


def save_daemon_metrics(lease: Lease, render: Callable[[], str]) -> None:
    """Write what `render` gives. Raises `LeaseLostError`."""
    text = render()
    with lease.writing() as head:
        columns = {"epoch": lease.epoch, "text": text, "written_at": head.now}
        if not DaemonMetrics.objects.filter(pk=1).update(**columns):
            DaemonMetrics.objects.create(pk=1, **columns)


def catalogue_size() -> tuple[int, int]:
    """Skills and categories in the mirror. It counts them: some 20 ms for 100,000, so not at every scrape."""
    return Skill.objects.count(), Category.objects.count()


def decided_since(since: datetime | None) -> tuple[datetime, Counter[str]]:
    """Management decisions after `since`, by outcome, and until when they were counted: `since` of the next call.

    `None`: nothing is counted yet, from now on.
    """
    until = database_now() - _AUDIT_SETTLES
    if since is None:
        return until, Counter()
    if until <= since:  # the clock was put back
        return until, Counter()
    rows = AuditRow.objects.filter(at__gt=since, at__lte=until).order_by()
    return until, Counter(dict(rows.values_list("outcome").annotate(Count("id"))))


def save_feed_server(name: str, clients: int, lag: int) -> None:
    """Say how many clients of the feed this process serves, and by how many changes the last of them is behind."""
    now = database_now()
    FeedServer.objects.exclude(within("seen_at", now, FEED_SERVER_SECONDS)).delete()
    columns = {"clients": clients, "lag": lag, "seen_at": now}
    FeedServer.objects.update_or_create(name=name, defaults=columns)


def forget_feed_server(name: str) -> None:
    """This process serves nobody any more."""
    FeedServer.objects.filter(name=name).delete()
