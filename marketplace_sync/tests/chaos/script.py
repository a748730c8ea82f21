"""A run, made out of a seed: what is done to the daemon, its marketplace, its network and its database, and when.

Pure: the same seed gives the same script on any machine. The timing between the processes still varies,
so a seed repeats the troubles, not the nanoseconds.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marketplace_sync.simulator.faults import FAULTS

# The daemons: the second one stands by, where the script has one.
SLOTS = ("a", "b")
# Faults of the marketplace at the strength and pace of a run of seconds; what is not named here is set as it is.
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "slow-handshake": {"seconds": 1.0}, "ws-429": {"retry_after": 1}, "http-429": {"retry_after": 1},
    "slow-body": {"seconds": 1.0}, "flood": {"count": 400}, "reorder": {"linger": 0.1},
}  # fmt: skip
# Those that strike a big payload or end the connection each time: not at every occasion.
SOMETIMES = ("oversize", "oversize-hard", "broken-frame", "malformed", "dropped-event")
# What gives a fault something to strike while it lasts: a connect, an event, or else requests.
AT_CONNECTS = frozenset(
    ("refuse", "accept-then-close", "slow-handshake", "forbidden", "ws-429", "close-4401", "close-1008", "flood")
)
AT_EVENTS = frozenset(("mute", "dropped-event", "duplicate", "reorder", *SOMETIMES))
# Beside the marketplace's own faults, by the names that the table shows.
TROUBLES: Mapping[str, str] = {
    "kill -9": "the daemon is killed and started again later",
    "SIGTERM": "the daemon is asked to stop, in the middle of everything, and started again later",
    "pause": "SIGSTOP for longer than the lease, then SIGCONT",
    "cut": "every connection between a daemon and the marketplace is reset, new ones too",
    "stall": "the network between them carries nothing, and no connection is closed",
    "one-way": "the network between them carries what the daemon sends but no answers, then resets",
    "delay": "the network between them takes its time with every packet",
    "market-gone": "the marketplace's port is closed",
    "market-drop": "the marketplace ends every stream, by a reset or a close code",
    "clock": "the marketplace's clock jumps by an hour",
    "database-lock": "another program keeps the database's lock",
    "database-terminate": "the database ends every connection of the daemons",
    "database-cut": "the connections between one daemon and the database are reset, new ones too",
    "database-stall": "the network between one daemon and the database carries nothing",
    "database-one-way": "what one daemon asks of the database is done, the answers never arrive, then a reset",
    "database-read-only": "the database takes no writes, as after a fail-over",
}
# Which troubles a database can have; what is not named here strikes any.
ON_POSTGRES_ALONE = frozenset(name for name in TROUBLES if name.startswith("database-") and name != "database-lock")

# In every other run the next poll is a quarter of an hour away: what the stream, its losses and its reconnects set
# in motion must suffice. There a marketplace may fail in any way but these, which only a poll can notice.
UNNOTICEABLE = frozenset((
    "dropped-event", "stale-page", "page-drift", "empty-listing", "shrunken-listing", "partial-listing",
))  # fmt: skip
POLLED_ALONE = frozenset(("category-gone",))

# Troubles of an owner that are worth most with somebody there to take over.
SHARED = frozenset(("pause", "database-cut", "database-stall", "database-one-way"))

CHANGES = ("create", "update", "short", "rate", "vote", "delete", "category", "category-gone", "bulk-delete", "revive",
           "burst")  # fmt: skip
_CHANGE_WEIGHTS = (16, 24, 12, 16, 6, 12, 6, 2, 1, 6, 12)
COMMANDS = ("disable", "enable", "reconnect", "sync")
CLOSE_CODES = (None, 1000, 1001, 1008, 1011, 1012, 4401)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, `at` seconds after the beginning; `lasts` 0: it has no duration."""

    at: float
    do: str  # "change", "command", "fault", "standby", or one of `TROUBLES`
    lasts: float = 0.0
    args: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lasting = f" for {self.lasts:g} s" if self.lasts else ""
        return f"{self.at:5.2f} {self.do}{lasting} {' '.join(f'{key}={value}' for key, value in self.args.items())}"


@dataclass(frozen=True, slots=True)
class Script:
    """A run: a marketplace of so many skills, the daemons' settings, and the steps in their order."""

    seed: int
    skills: int
    settings: Mapping[str, object]
    polls: bool  # within the run, that is
    wait_until_live: bool  # else the troubles begin with the first daemon's start
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        about = f"seed {self.seed}: {self.skills} skills, {dict(self.settings)}, live first: {self.wait_until_live}"
        return "\n".join((about, *map(str, self.steps)))


def script_of(seed: int, *, postgres: bool) -> Script:
    """Return the run of this seed on this kind of database."""
    rng = random.Random(f"chaos {seed}")
    polls = seed % 2 == 0
    seconds = rng.uniform(2.5, 4.5)
    steps: list[Step] = []

    def add(do: str, *, at: float | None = None, lasts: float = 0.0, **args: Any) -> float:
        moment = round(rng.uniform(0, seconds) if at is None else at, 2)
        steps.append(Step(moment, do, round(lasts, 2), args))
        return moment

    for name in _faults_of(seed, rng, polls=polls):
        _add_fault(name, rng, add)
    troubles = _troubles_of(seed, rng, postgres=postgres)
    for name in troubles:
        _add_trouble(name, rng, add)
    for _ in range(rng.randint(12, 40)):
        kind = rng.choices(CHANGES, _CHANGE_WEIGHTS)[0]
        if polls or kind not in POLLED_ALONE:
            add("change", kind=kind, announce=not polls or rng.random() < 0.7, draw=rng.randrange(2**32))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        add("command", action=rng.choice(COMMANDS))
    if rng.random() < 0.5 or SHARED & {*troubles}:
        add("standby", at=rng.uniform(0, 0.5))
    return Script(
        seed=seed,
        skills=rng.choice((1, 5, 30, 60, 120)),
        settings={
            "ATOM_SAAS_PAGE_SIZE": rng.choice((7, 20, 100)),
            "ATOM_SAAS_WS_RATE_LIMIT": rng.choice((0, 0, 20)),
            "ATOM_SAAS_SYNC_INTERVAL_MINUTES": round(rng.uniform(1.0, 4.0) / 60, 4) if polls else 15,
            "ATOM_SAAS_QUEUE_MAX_BYTES": rng.choice((2**21, 2**26)),
        },
        polls=polls,
        wait_until_live=rng.random() < 0.7,
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def _faults_of(seed: int, rng: random.Random, *, polls: bool) -> list[str]:
    """Return one to four of the marketplace's faults. Consecutive seeds cover all of them."""
    able = [name for name in FAULTS if polls or name not in UNNOTICEABLE]
    return [able[seed // 2 % len(able)], *rng.choices(able, k=rng.randint(0, 3))]


def _troubles_of(seed: int, rng: random.Random, *, postgres: bool) -> list[str]:
    """Return one to three other troubles, in the same way."""
    able = [name for name in TROUBLES if postgres or name not in ON_POSTGRES_ALONE]
    return [able[seed // 2 % len(able)], *rng.choices(able, k=rng.randint(0, 2))]


def _add_fault(name: str, rng: random.Random, add: Callable[..., float]) -> None:
    args: dict[str, Any] = {"name": name, **PARAMS.get(name, {})}
    if name in SOMETIMES:
        args["every"] = rng.choice((1, 2, 3, 5))
    elif rng.random() < 0.25:
        args["times"] = rng.randint(1, 4)
    if name in ("accept-then-close", "ws-429", "http-429") and rng.random() < 0.3:
        args |= {"code": rng.choice((1000, 1001, 1011, 1013))} if name == "accept-then-close" else {"http_date": True}
    lasts = rng.uniform(0.4, 2.5)
    began = add("fault", lasts=lasts, **args)
    for _ in range(rng.randint(0, 2)):
        within = began + rng.uniform(0.02, lasts)
        if name in AT_CONNECTS:
            add("market-drop", at=within, code=rng.choice(CLOSE_CODES))
        elif name in AT_EVENTS:
            add("change", at=within, kind="burst", announce=True, draw=rng.randrange(2**32))
        else:
            add("command", at=within, action="sync")


def _add_trouble(name: str, rng: random.Random, add: Callable[..., float]) -> None:
    slot = rng.choice(("a", "a", "a", "b"))
    match name:
        case "kill -9" | "SIGTERM":
            # The longest is long enough for the status to show that no daemon runs.
            add(name, lasts=rng.choice((0.05, 0.3, 1.0, 3.5)), slot=slot)
        case "pause":
            add(name, lasts=rng.choice((rng.uniform(0.3, 1.0), rng.uniform(1.5, 4.0))), slot=slot)
        case "cut" | "stall" | "one-way":
            add(name, lasts=rng.uniform(0.2, 3.0), slot=slot)
        case "delay":
            add(name, lasts=rng.uniform(1.0, 3.0), slot=slot, by=rng.choice((0.02, 0.1, 0.3)))
        case "market-gone":
            add(name, lasts=rng.uniform(0.2, 2.0))
        case "market-drop":
            add(name, code=rng.choice(CLOSE_CODES))
        case "clock":
            add(name, lasts=rng.uniform(0.5, 3.0), hours=rng.choice((-1, 1)))
        case "database-lock":
            add(name, lasts=rng.uniform(0.3, 2.5), what=rng.choice(("lease", "skill")))
        case "database-terminate":
            add(name)
        case "database-cut" | "database-stall" | "database-one-way":
            add(name, lasts=rng.uniform(0.2, 2.5), slot=slot)
        case "database-read-only":
            add(name, lasts=rng.uniform(0.3, 1.5))
