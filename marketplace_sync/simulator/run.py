"""Run the simulator as a program."""

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
    """The options of a simulation. `skills` `None`: 200 generated ones, or none where a history is replayed."""

    host: str = "127.0.0.1"
    port: int = 5058
    # For a person to copy; not a secret.
    token: str = "simulator-token"
    skills: int | None = None
    catalog: Path | None = None
    categories: Path | None = None
    replay: Path | None = None
    rate: float = 100.0
    changes_per_second: float = 0.0
    faults: tuple[str, ...] = ()
    # 0: they last for the whole run.
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


def check(options: SimulatorOptions) -> None:
    """Raise `SimulatorError` for the first option that can't work."""
    for name, value in (
        ("--skills", options.skills), ("--rate", options.rate), ("--changes-per-second", options.changes_per_second),
        ("--requests-per-minute", options.requests_per_minute), ("--connects-per-minute", options.connects_per_minute),
        ("--fault-seconds", options.fault_seconds), ("--heartbeat-interval", options.heartbeat_interval),
    ):  # fmt: skip
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise SimulatorError(f"{name} must be 0 or more, not {value}.")
    if not 0 <= options.port <= 65_535:
        raise SimulatorError(f"--port must be from 0 (any free one) to 65535, not {options.port}.")
    if not options.token:
        raise SimulatorError("--token must not be empty.")
    for name, path in (
        ("--base-path", options.base_path),
        ("--api-prefix", options.api_prefix),
        ("--ws-path", options.ws_path),
    ):
        if path and (not path.startswith("/") or path.endswith("/")):
            raise SimulatorError(f"{name} must begin with a slash and end with none, or be empty: {path!r}.")
    if options.catalog is not None and options.skills is not None:
        raise SimulatorError("--skills generates a catalogue and --catalog reads one: use one of them.")
    if options.categories is not None and options.catalog is None and options.replay is None:
        raise SimulatorError("--categories needs --catalog or --replay.")
    for name in options.faults:
        if name not in FAULTS:
            raise UnknownFaultError(name)
    if options.replay is not None and not options.replay.is_file():
        raise SimulatorError(f"{options.replay} can't be read: no such file.")


def first_records(options: SimulatorOptions) -> Catalog:
    """Return the records to begin with. Raises `SimulatorError`, naming file and line."""
    if options.catalog is None and (options.replay is None or options.skills is not None):
        count = DEFAULT_SKILLS if options.skills is None else options.skills
        catalog = generate(count, options.seed, datetime.now(UTC))
        if options.categories is not None:
            catalog = catalog._replace(categories=load_categories(options.categories))
        return catalog
    skills = load_skills(options.catalog) if options.catalog is not None else []
    listed = load_categories(options.categories) if options.categories is not None else []
    unlisted = derive_categories(skills, (category["name"] for category in listed))
    return Catalog(skills, [*listed, *unlisted], [])


async def run(options: SimulatorOptions, report: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set. `report` takes one line for the person who watches.

    Raises `SimulatorError` for what that person can fix: an option, a file, a port.
    """
    check(options)
    catalog = first_records(options)
    market = Marketplace(catalog.skills, catalog.categories)
    server = SimulatorServer(
        market, options.token, options.host, options.port, requests_per_minute=options.requests_per_minute,
        connects_per_minute=options.connects_per_minute, heartbeat_interval=options.heartbeat_interval,
        variant=options.variant,
    )  # fmt: skip
    server.on_stream = lambda opened: report(_stream_line(opened, server.clients))
    for name in options.faults:
        server.faults.add_for_a_run(name)
    try:
        await server.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _port_error(options, error) from None
    async with server:
        _introduce(options, server, report)
        try:
            async with asyncio.TaskGroup() as group:
                work = []
                if options.replay is not None:
                    work.append(group.create_task(_replay(options, options.replay, server, report), name="replay"))
                if options.changes_per_second:
                    churn = Churn(market, catalog.reserve, options.seed)
                    work.append(group.create_task(churn.run(options.changes_per_second, server.drain), name="churn"))
                if options.faults and options.fault_seconds:
                    ending = _end_faults(options.fault_seconds, server, report)
                    work.append(group.create_task(ending, name="end of faults"))
                await stop.wait()
                for task in work:
                    task.cancel()
        except* SimulatorError as errors:
            raise errors.exceptions[0] from None
    report("Stopped.")


async def _replay(
    options: SimulatorOptions, path: Path, server: SimulatorServer, report: Callable[[str], None]
) -> None:  # fmt: skip
    await server.stream_opened.wait()
    speed = f"{options.rate:g} messages per second" if options.rate else "full speed"
    report(f"Replay of {path} begins, at {speed}.")
    played = await replay(server.market, path, options.rate, server.drain)
    rate = (played.messages + played.categories) / max(played.seconds, 1e-6)
    report(
        f"Replay has ended: {played.messages:,} messages, and {played.categories:,} for categories that they name, "
        f"in {played.seconds:.1f} s ({rate:,.0f} per second). The catalogue has {len(server.market.skills):,} skills."
    )


async def _end_faults(seconds: float, server: SimulatorServer, report: Callable[[str], None]) -> None:
    await asyncio.sleep(seconds)
    server.faults.clear()
    report("The faults have ended.")


def _stream_line(opened: bool, clients: int) -> str:
    return f"{datetime.now():%H:%M:%S} A stream client {'connected' if opened else 'left'}; open streams: {clients}."


def _introduce(options: SimulatorOptions, server: SimulatorServer, report: Callable[[str], None]) -> None:
    market = server.market
    report(f"Simulated marketplace: {len(market.skills):,} skills, {len(market.categories):,} categories.")
    for name in options.faults:
        report(f"Fault {name}: {FAULTS[name].description}.")
    if options.replay is not None:
        report("The replay begins when a stream client connects.")
    report("To mirror it, set in the environment or in .env:")
    report(f"  ATOM_SAAS_API_URL={server.api_url}")
    report(f"  ATOM_SAAS_API_TOKEN={options.token}")
    for name, value, default in (
        ("ATOM_SAAS_API_PREFIX", options.api_prefix, DOCUMENTED.prefix),
        ("ATOM_SAAS_API_AUTH", options.api_auth, DOCUMENTED.api_auth),
        ("ATOM_SAAS_WS_AUTH", options.ws_auth, DOCUMENTED.ws_auth),
        ("ATOM_SAAS_WS_URL", server.ws_url, server.ws_url if options.ws_path == DOCUMENTED.ws_path else ""),
    ):
        if value != default:
            report(f"  {name}={value}")
    report("then: python manage.py runsync. Ctrl-C stops the simulator.")


def _port_error(options: SimulatorOptions, error: Exception) -> SimulatorError:
    where = f"Port {options.port} on {options.host}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return SimulatorError(f"{where} is taken; choose another with --port (0 takes a free one).")
    return SimulatorError(f"{where} can't be opened: {getattr(error, 'strerror', None) or error}.")
