"""What must hold when the troubles are over."""

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
# Why a daemon may end by itself: it says so in one line, and a supervisor starts it again.
_SAID = re.compile(
    r"the lease has gone to|the database does not answer|The database does not answer|"
    r"received changes not applied|the stop took too long"
)
# What no daemon says, whatever happens.
_NEVER = re.compile(r"Traceback \(most recent call last\)|was never (awaited|retrieved)|RuntimeWarning|ResourceWarning")


@dataclass(frozen=True, slots=True)
class Open:
    """What is not settled yet, and what a person who watches would do about it."""

    reasons: list[str]
    enable: bool = False
    reconnect: bool = False
    approve: int = 0  # a held run


def unsettled(market: Marketplace) -> Open:
    """What the mirror still has to do before it is level, live and at rest."""
    now = status()
    reasons = []
    if now.row.state != "live" or not now.alive:
        reasons.append(f"the state is {now.row.state} ({now.row.disconnect_reason})")
    asked = Command.objects.filter(state__in=OPEN_COMMANDS)
    reasons += [f"command {command.pk}, {command.action}, is {command.state}" for command in asked]
    reasons += [f"run {run.pk} is running" for run in SyncRun.objects.filter(state="running")]
    unlike = from_the_truth(market)
    reasons += unlike[:10] + ([f"and {len(unlike) - 10} more"] if len(unlike) > 10 else [])
    held = SyncRun.objects.filter(state="held").order_by("-id").first()
    approve = 0
    if held is not None and unlike and not asked:
        ids = set(HeldRemoval.objects.filter(run=held).values_list("skill_id", flat=True))
        # What a person looks at before approving: is all of it truly gone?
        approve = held.pk if ids and not ids & market.skills.keys() else 0
    return Open(
        reasons,
        enable=not now.row.enabled and not asked,
        reconnect=now.row.state == "suspended" and not asked,
        approve=approve,
    )


def after_the_stop(market: Marketplace, deaths: Counter[str]) -> tuple[list[str], int]:
    """What is wrong once every daemon has stopped; and how many removals were lawful though not true."""
    found = [f"after the stop, {text}" for text in from_the_truth(market)]
    found += [f"in the feed, {text}" for text in in_the_feed()]
    now = status()
    if now.row.state != "not_running" or now.alive or now.row.connected:
        found.append(f"after a clean stop: {now.row.state}, alive {now.alive}, connected {now.row.connected}")
    lease = LeaseRow.objects.get(pk=1)
    if lease.holder:
        found.append(f"after a clean stop the lease is held by {lease.holder}")
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
    """No removal without law 5's proof: each had a death of its own, or two clean listings that lied alike.

    In the second case the rows say so: a clean run did it, and it was not more than may go unasked.
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


def epochs_taken(said: str) -> list[int]:
    """The lease's epochs under which a daemon has written, by what it said."""
    return [int(found) for found in re.findall(r"lease_taken epoch=(\d+)", said)]


def of_a_daemon(daemon: Daemon, said: str, *, database_trouble: bool) -> list[str]:
    """What is wrong about how a daemon ended and what it said. `daemon.status` is set."""
    who = f"daemon {daemon.slot} ({daemon.output.name})"
    found = []
    if TOKEN in said:
        found.append(f"{who} told the token")
    if never := _NEVER.search(said):
        found.append(f"{who} said {never[0]!r}: ...{said[max(0, never.start() - 200) : never.end() + 3_000]}")
    match daemon.status, daemon.doomed:
        case (-9, "kill -9") | (0, "SIGTERM"):
            pass
        case -15, "SIGTERM" if not said:
            pass  # asked to stop while it was still starting, before it had begun anything
        case 1, why if _SAID.search(said):
            if why == "SIGTERM" and not database_trouble and "lease has gone" not in said:
                found.append(f"{who} did not stop cleanly though the database was in order: {said[-300:]}")
        case status, why:
            found.append(f"{who} ended with {status} ({why or 'nobody had asked'}): ...{said[-300:]}")
    return found
