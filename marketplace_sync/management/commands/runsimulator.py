"""`manage.py runsimulator`: run a simulated marketplace, for demos and tests."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from marketplace_sync.management.marketplace import print_unredacted
from marketplace_sync.management.optional import SIMULATOR_MISSING, has_simulator

if TYPE_CHECKING or has_simulator():
    from marketplace_sync.simulator.faults import FAULTS
    from marketplace_sync.simulator.run import DEFAULT_SKILLS, SimulatorOptions, run
    from marketplace_sync.simulator.wire import SimulatorError


class Command(BaseCommand):
    help = "Run a simulated marketplace (HTTP and WebSocket on one port) until Ctrl-C or SIGTERM."
    # It needs no setting and no database: it must start where the project is not configured yet.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        if not has_simulator():
            _end_without_simulator(parser)
        defaults = SimulatorOptions()
        add = parser.add_argument
        add("--host", default=defaults.host, help="address to listen on (%(default)s)")
        add("--port", type=int, default=defaults.port, help="port, 0 for any free one (%(default)s)")
        add("--token", default=defaults.token, help="the token that clients must send (%(default)s)")
        add("--skills", type=int, metavar="N", help=f"how many skills to generate ({DEFAULT_SKILLS}; with --replay 0)")
        add("--catalog", type=Path, metavar="FILE", help="skills as JSON lines, instead of generated ones")
        add("--categories", type=Path, metavar="FILE", help="categories as JSON lines")
        add("--replay", type=Path, metavar="FILE", help="messages as JSON lines (.gz), sent from the first connect on")
        add("--rate", type=float, default=defaults.rate, metavar="N",
            help="messages to replay per second, 0: full speed (%(default)s)")  # fmt: skip
        add("--changes-per-second", type=float, default=defaults.changes_per_second, metavar="N",
            help="random changes per second (0)")  # fmt: skip
        add("--fault", action="append", dest="faults", metavar="NAME", help="a fault for the whole run; repeatable")
        add("--fault-seconds", type=float, default=defaults.fault_seconds, metavar="S",
            help="end the faults after this time, 0: never (%(default)s)")  # fmt: skip
        add("--list-faults", action="store_true", help="list the faults and exit")
        add("--requests-per-minute", type=int, default=defaults.requests_per_minute, metavar="N",
            help="HTTP requests in any 60 s, 0: no limit (%(default)s)")  # fmt: skip
        add("--connects-per-minute", type=int, default=defaults.connects_per_minute, metavar="N",
            help="stream connects in any 60 s, 0: no limit (%(default)s)")  # fmt: skip
        add("--heartbeat-interval", type=float, default=defaults.heartbeat_interval, metavar="S",
            help="seconds between the server's pings, 0: none (%(default)s)")  # fmt: skip
        add("--base-path", default=defaults.base_path, metavar="PATH", help="path of the base URL, such as /api (none)")
        add("--api-prefix", default=defaults.api_prefix, metavar="PATH", help="as ATOM_SAAS_API_PREFIX (%(default)s)")
        add("--api-auth", default=defaults.api_auth, metavar="HOW", help="as ATOM_SAAS_API_AUTH (%(default)s)")
        add("--ws-auth", default=defaults.ws_auth, metavar="HOW", help="as ATOM_SAAS_WS_AUTH (%(default)s)")
        add("--ws-path", default=defaults.ws_path, metavar="PATH", help="path of the stream (%(default)s)")
        add("--seed", type=int, default=defaults.seed, metavar="N", help="seed of everything random (%(default)s)")

    def handle(self, *args: Any, list_faults: bool, faults: list[str] | None, **options: Any) -> None:
        if list_faults:
            for fault in FAULTS.values():
                self.print_line(f"{fault.name:<18} {fault.description}")
            return
        chosen = {name: options[name] for name in SimulatorOptions.__dataclass_fields__ if name in options}
        try:
            asyncio.run(self.serve(SimulatorOptions(**chosen, faults=tuple(faults or ()))))
        except SimulatorError as error:
            raise CommandError(str(error)) from None

    async def serve(self, simulation: "SimulatorOptions") -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(simulation, self.print_line, stop)

    def print_line(self, line: str) -> None:
        print_unredacted(self, line)
        # Piped output would otherwise wait for a full block, and the program that reads the address from it too.
        self.stdout.flush()


def _end_without_simulator(parser: CommandParser) -> None:
    """End the command. Django turns a `CommandError` into one line only after it has read the arguments."""
    if parser.called_from_command_line:
        parser.exit(1, f"CommandError: {SIMULATOR_MISSING}\n")
    raise CommandError(SIMULATOR_MISSING)
