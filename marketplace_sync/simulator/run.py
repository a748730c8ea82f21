"""A simulator as a program: what it serves, what it says on the way, how it ends."""

import asyncio
import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from marketplace_sync.simulator.catalog import Catalog, derive_categories, generate, load_categories, load_skills
from marketplace_sync.simulator.churn import Churn
from marketplace_sync.simulator.faults import FAULTS, UnknownFaultError
from marketplace_sync.simulator.http import DOCUMENTED
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.replay import replay
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.simulator.variant import Variant
from marketplace_sync.simulator.wire import SimulatorError

DEFAULT_SKILLS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """What to simulate. `skills` `None`: 200 generated ones, or none where a history is replayed into the truth."""

    host: str = "127.0.0.1"
    port: int = 5058
    # A name for a stranger to copy, no secret.
    token: str = "simulator-token"
    skills: int | None = None
    catalog: Path | None = None
    categories: Path | None = None
    replay: Path | None = None
    rate: float = 100.0
    changes_per_second: float = 0.0
    faults: tuple[str, ...] = ()
    # 0: they last as long as the run does.
    fault_seconds: float = 0.0
    requests_per_minute: int = 100
    connects_per_minute: int = 10
    heartbeat_interval: float = 30.0
    seed: int = 0
    base_path: str = DOCUMENTED.base
    api_prefix: str = DOCUMENTED.prefix
    api_auth: str = DOCUMENTED.api_auth
    ws_auth: str = DOCUMENTED.ws_auth
    ws_path: str = DOCUMENTED.ws_path

    @property
    def variant(self) -> Variant:
        return Variant(
            base=self.base_path, prefix=self.api_prefix, api_auth=self.api_auth, ws_auth=self.ws_auth,
            ws_path=self.ws_path,
        )  # fmt: skip


def check(plan: SimulatorOptions) -> None:
    """Raises `SimulatorError` for the first thing in the plan that can't work."""
    for name, value in (
        ("--skills", plan.skills), ("--rate", plan.rate), ("--changes-per-second", plan.changes_per_second),
        ("--requests-per-minute", plan.requests_per_minute), ("--connects-per-minute", plan.connects_per_minute),
        ("--fault-seconds", plan.fault_seconds), ("--heartbeat-interval", plan.heartbeat_interval),
    ):  # fmt: skip
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise SimulatorError(f"{name} must be 0 or more, not {value}.")
    if not 0 <= plan.port <= 65_535:
        raise SimulatorError(f"--port must be from 0 (any free one) to 65535, not {plan.port}.")
    if not plan.token:
        raise SimulatorError("--token must not be empty.")
    for name, path in (("--base-path", plan.base_path), ("--api-prefix", plan.api_prefix), ("--ws-path", plan.ws_path)):
        if path and (not path.startswith("/") or path.endswith("/")):
            raise SimulatorError(f"{name} must begin with a slash and end with none, or be empty: {path!r}.")
    if plan.catalog is not None and plan.skills is not None:
        raise SimulatorError("--skills generates a catalogue and --catalog reads one: give one of them.")
    if plan.categories is not None and plan.catalog is None and plan.replay is None:
        raise SimulatorError("--categories goes with --catalog or --replay.")
    for name in plan.faults:
        if name not in FAULTS:
            raise UnknownFaultError(name)
    if plan.replay is not None and not plan.replay.is_file():
        raise SimulatorError(f"{plan.replay} can't be read: no such file.")


def first_records(plan: SimulatorOptions) -> Catalog:
    """The truth that the plan begins with. Raises `SimulatorError`, naming file and line."""
    if plan.catalog is None and (plan.replay is None or plan.skills is not None):
        count = DEFAULT_SKILLS if plan.skills is None else plan.skills
        catalog = generate(count, plan.seed, datetime.now(UTC))
        return catalog if plan.categories is None else catalog._replace(categories=load_categories(plan.categories))
    skills = load_skills(plan.catalog) if plan.catalog is not None else []
    listed = load_categories(plan.categories) if plan.categories is not None else []
    unlisted = derive_categories(skills, (category["name"] for category in listed))
    return Catalog(skills, [*listed, *unlisted], [])


async def run(plan: SimulatorOptions, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve the plan until `stop` is set. `say` takes one line for the person who watches.

    Raises `SimulatorError` for what that person can put right: a plan, a file, a port.
    """
    check(plan)
    catalog = first_records(plan)
    market = Marketplace(catalog.skills, catalog.categories)
    server = SimulatorServer(
        market, plan.token, plan.host, plan.port, requests_per_minute=plan.requests_per_minute,
        connects_per_minute=plan.connects_per_minute, heartbeat_interval=plan.heartbeat_interval, variant=plan.variant,
    )  # fmt: skip
    server.on_stream = lambda opened: say(_stream_line(opened, server.clients))
    for name in plan.faults:
        server.faults.add_for_a_run(name)
    try:
        await server.listen()
    except (OSError, OverflowError, UnicodeError) as fault:
        raise _port_error(plan, fault) from None
    async with server:
        _introduce(plan, server, say)
        try:
            async with asyncio.TaskGroup() as group:
                work = []
                if plan.replay is not None:
                    work.append(group.create_task(_replay(plan, plan.replay, server, say), name="replay"))
                if plan.changes_per_second:
                    churn = Churn(market, catalog.reserve, plan.seed)
                    work.append(group.create_task(churn.run(plan.changes_per_second, server.drain), name="churn"))
                if plan.faults and plan.fault_seconds:
                    work.append(group.create_task(_end_faults(plan.fault_seconds, server, say), name="end of faults"))
                await stop.wait()
                for task in work:
                    task.cancel()
        except* SimulatorError as faults:
            raise faults.exceptions[0] from None
    say("Stopped.")


async def _replay(plan: SimulatorOptions, path: Path, server: SimulatorServer, say: Callable[[str], None]) -> None:
    await server.stream_opened.wait()
    speed = f"{plan.rate:g} messages a second" if plan.rate else "full speed"
    say(f"Replay of {path} begins, at {speed}.")
    played = await replay(server.market, path, plan.rate, server.drain)
    rate = (played.messages + played.categories) / max(played.seconds, 1e-6)
    say(
        f"Replay has ended: {played.messages:,} messages, and {played.categories:,} for categories they made, "
        f"in {played.seconds:.1f} s ({rate:,.0f} a second); {len(server.market.skills):,} skills now."
    )


async def _end_faults(seconds: float, server: SimulatorServer, say: Callable[[str], None]) -> None:
    await asyncio.sleep(seconds)
    server.faults.clear()
    say("The faults have ended.")


def _stream_line(opened: bool, clients: int) -> str:
    return f"{datetime.now():%H:%M:%S} A stream client {'connected' if opened else 'left'}; open streams: {clients}."


def _introduce(plan: SimulatorOptions, server: SimulatorServer, say: Callable[[str], None]) -> None:
    market = server.market
    say(f"Simulated marketplace: {len(market.skills):,} skills, {len(market.categories):,} categories.")
    for name in plan.faults:
        say(f"Fault {name}: {FAULTS[name].description}.")
    if plan.replay is not None:
        say("The replay begins when a stream client connects.")
    say("To mirror it, set in the environment or in .env:")
    say(f"  ATOM_SAAS_API_URL={server.api_url}")
    say(f"  ATOM_SAAS_API_TOKEN={plan.token}")
    for name, value, default in (
        ("ATOM_SAAS_API_PREFIX", plan.api_prefix, DOCUMENTED.prefix),
        ("ATOM_SAAS_API_AUTH", plan.api_auth, DOCUMENTED.api_auth),
        ("ATOM_SAAS_WS_AUTH", plan.ws_auth, DOCUMENTED.ws_auth),
        ("ATOM_SAAS_WS_URL", server.ws_url, server.ws_url if plan.ws_path == DOCUMENTED.ws_path else ""),
    ):
        if value != default:
            say(f"  {name}={value}")
    say("then: python manage.py runsync. Ctrl-C stops the simulator.")


def _port_error(plan: SimulatorOptions, fault: Exception) -> SimulatorError:
    where = f"Port {plan.port} on {plan.host}"
    if isinstance(fault, OSError) and fault.errno == errno.EADDRINUSE:
        return SimulatorError(f"{where} is taken; choose another with --port (0 takes a free one).")
    return SimulatorError(f"{where} can't be opened: {getattr(fault, 'strerror', None) or fault}.")
