"""Check the mirror when the troubles are over."""

import json
import re
from collections import Counter
from dataclasses import dataclass

from django.core import serializers

from marketplace_sync.mirror.status import status
from marketplace_sync.models import (
    Command,
    DeadLetter,
    FeedChange,
    HeldRemoval,
    LeaseRow,
    Standby,
    SyncRun,
    WebSocketState,
)
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.tests.chaos.stage import TOKEN, Daemon
from marketplace_sync.tests.support.truth import from_the_truth, in_the_feed

OPEN_COMMANDS = ("pending", "accepted")
# Reasons for which a daemon may end unasked: it logs one line, and a supervisor starts it again.
_ALLOWED_ENDS = re.compile(
    r"the lease has gone to|the database does not answer|The database does not answer|"
    r"received changes not applied|the stop took too long"
)
# What no daemon logs, whatever happens.
_NEVER = re.compile(r"Traceback \(most recent call last\)|was never (awaited|retrieved)|RuntimeWarning|ResourceWarning")


@dataclass(frozen=True, slots=True)
class Open:
    """What is not settled yet, and what an operator would do about it."""

    reasons: list[str]
    enable: bool = False
    reconnect: bool = False
    approve: int = 0  # a sync run with removals on hold


def unsettled(market: Marketplace) -> Open:
    """Return what the mirror still has to do before it is in sync, live and idle."""
    now = status()
    reasons = []
    if now.row.state != "live" or not now.alive:
        reasons.append(f"the state is {now.row.state} ({now.row.disconnect_reason})")
    asked = Command.objects.filter(state__in=OPEN_COMMANDS)
    reasons += [f"command {command.pk}, {command.action}, is {command.state}" for command in asked]
    reasons += [f"run {run.pk} is running" for run in SyncRun.objects.filter(state="running")]
    unlike = from_the_truth(market)
    reasons += unlike[:10] + ([f"and {len(unlike) - 10} more"] if len(unlike) > 10 else [])
    on_hold = SyncRun.objects.filter(state="held").order_by("-id").first()
    approve = 0
    if on_hold is not None and unlike and not asked:
        ids = set(HeldRemoval.objects.filter(run=on_hold).values_list("skill_id", flat=True))
        # What a person checks before approving: are all of them really removed?
        approve = on_hold.pk if ids and not ids & market.skills.keys() else 0
    return Open(
        reasons,
        enable=not now.row.enabled and not asked,
        reconnect=now.row.state == "suspended" and not asked,
        approve=approve,
    )


def after_the_stop(market: Marketplace, deaths: Counter[str]) -> tuple[list[str], int]:
    """Return what is wrong after every daemon has stopped, and the number of removals that were lawful but wrong."""
    found = [f"after the stop, {text}" for text in from_the_truth(market)]
    found += [f"in the feed, {text}" for text in in_the_feed()]
    now = status()
    if now.row.state != "not_running" or now.alive or now.row.connected:
        found.append(f"after a clean stop: {now.row.state}, alive {now.alive}, connected {now.row.connected}")
    lease = LeaseRow.objects.get(pk=1)
    if lease.holder:
        found.append(f"after a clean stop the lease belongs to {lease.holder}")
    if standby := list(Standby.objects.values_list("holder", flat=True)):
        found.append(f"after a clean stop these stand by: {standby}")
    newest = FeedChange.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
    if lease.feed_seq != newest:
        found.append(f"the last number given is {lease.feed_seq}, the last one there is {newest}")
    found += [f"run {run.pk} is still running" for run in SyncRun.objects.filter(state="running")]
    found += [f"command {one.pk} is {one.state}" for one in Command.objects.filter(state__in=OPEN_COMMANDS)]
    wrong, untrue = _removals(deaths)
    return found + wrong + _token_in_rows(), untrue


def _removals(deaths: Counter[str]) -> tuple[list[str], int]:
    """Check that each removal was proved by law 5: the skill was removed, or two clean listings lied alike.

    In the second case the row names a clean sync run, which removed no more than it may without approval.
    """
    left = Counter(deaths)
    wrong, lawful = [], 0
    clean = dict(SyncRun.objects.values_list("pk", "is_clean"))
    for change in FeedChange.objects.filter(kind="skill_deleted").order_by("seq"):
        if left[change.key]:
            left[change.key] -= 1
        elif change.run_id is not None and clean.get(change.run_id):
            lawful += 1
        else:
            wrong.append(f"number {change.seq}: {change.key} was removed, by {change.source}, and had not gone")
    return wrong, lawful


def _token_in_rows() -> list[str]:
    rows = [*WebSocketState.objects.all(), *SyncRun.objects.all(), *DeadLetter.objects.all(), *Command.objects.all()]
    text = serializers.serialize("json", rows)
    return ["the token is in the database"] if TOKEN in text or json.dumps(TOKEN)[1:-1] in text else []


def epochs_taken(log: str) -> list[int]:
    """Return the epochs of the lease that a daemon took, by its log."""
    return [int(found) for found in re.findall(r"lease_taken epoch=(\d+)", log)]


def of_a_daemon(daemon: Daemon, log: str, *, database_trouble: bool) -> list[str]:
    """Return what is wrong with the end and the log of a daemon. `daemon.status` is set."""
    who = f"daemon {daemon.slot} ({daemon.output.name})"
    found = []
    if TOKEN in log:
        found.append(f"{who} logged the token")
    if never := _NEVER.search(log):
        found.append(f"{who} logged {never[0]!r}: ...{log[max(0, never.start() - 200) : never.end() + 3_000]}")
    match daemon.status, daemon.doomed:
        case (-9, "kill -9") | (0, "SIGTERM"):
            pass
        case -15, "SIGTERM" if not log:
            pass  # stopped while it was still starting
        case 1, why if _ALLOWED_ENDS.search(log):
            if why == "SIGTERM" and not database_trouble and "lease has gone" not in log:
                found.append(f"{who} did not stop cleanly though the database was in order: {log[-300:]}")
        case status, why:
            found.append(f"{who} ended with {status} ({why or 'unasked'}): ...{log[-300:]}")
    return found
