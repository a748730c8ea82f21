"""`manage.py runsimulator`: a simulated marketplace, for trying and testing."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from marketplace_sync.management.marketplace import show
from marketplace_sync.simulator.faults import FAULTS
from marketplace_sync.simulator.run import DEFAULT_SKILLS, SimulatorOptions, run
from marketplace_sync.simulator.wire import SimulatorError


class Command(BaseCommand):
    help = "Runs a simulated marketplace (HTTP and WebSocket on one port) until Ctrl-C or SIGTERM."
    # It needs no setting and no database: it must start where the project is not configured yet.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        plan = SimulatorOptions()
        add = parser.add_argument
        add("--host", default=plan.host, help="address to listen on (%(default)s)")
        add("--port", type=int, default=plan.port, help="port, 0 for any free one (%(default)s)")
        add("--token", default=plan.token, help="the token that clients must bring (%(default)s)")
        add("--skills", type=int, metavar="N", help=f"how many skills to generate ({DEFAULT_SKILLS}; with --replay 0)")
        add("--catalog", type=Path, metavar="FILE", help="skills as JSON lines, instead of generated ones")
        add("--categories", type=Path, metavar="FILE", help="categories as JSON lines")
        add("--replay", type=Path, metavar="FILE", help="trace of messages, JSON lines (.gz), from the first connect")
        add("--rate", type=float, default=plan.rate, metavar="N", help="replayed messages a second, 0: full speed")
        add("--changes-per-second", type=float, default=plan.changes_per_second, metavar="N",
            help="made-up changes a second (0)")  # fmt: skip
        add("--fault", action="append", dest="faults", metavar="NAME", help="a fault for the whole run; repeatable")
        add("--fault-seconds", type=float, default=plan.fault_seconds, metavar="S",
            help="end the faults after so long, 0: not at all (%(default)s)")  # fmt: skip
        add("--list-faults", action="store_true", help="say what each fault does, and exit")
        add("--requests-per-minute", type=int, default=plan.requests_per_minute, metavar="N",
            help="HTTP requests in any 60 s, 0: no limit (%(default)s)")  # fmt: skip
        add("--connects-per-minute", type=int, default=plan.connects_per_minute, metavar="N",
            help="stream connects in any 60 s, 0: no limit (%(default)s)")  # fmt: skip
        add("--heartbeat-interval", type=float, default=plan.heartbeat_interval, metavar="S",
            help="seconds between the server's pings, 0: none (%(default)s)")  # fmt: skip
        add("--base-path", default=plan.base_path, metavar="PATH", help="path of the base URL, such as /api (none)")
        add("--api-prefix", default=plan.api_prefix, metavar="PATH", help="as ATOM_SAAS_API_PREFIX (%(default)s)")
        add("--api-auth", default=plan.api_auth, metavar="HOW", help="as ATOM_SAAS_API_AUTH (%(default)s)")
        add("--ws-auth", default=plan.ws_auth, metavar="HOW", help="as ATOM_SAAS_WS_AUTH (%(default)s)")
        add("--ws-path", default=plan.ws_path, metavar="PATH", help="path of the stream (%(default)s)")
        add("--seed", type=int, default=plan.seed, metavar="N", help="of all that is made up (%(default)s)")

    def handle(self, *args: Any, list_faults: bool, faults: list[str] | None, **options: Any) -> None:
        if list_faults:
            for fault in FAULTS.values():
                self.say(f"{fault.name:<18} {fault.description}")
            return
        chosen = {name: options[name] for name in SimulatorOptions.__dataclass_fields__ if name in options}
        try:
            asyncio.run(self.serve(SimulatorOptions(**chosen, faults=tuple(faults or ()))))
        except SimulatorError as fault:
            raise CommandError(str(fault)) from None

    async def serve(self, plan: SimulatorOptions) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(plan, self.say, stop)

    def say(self, line: str) -> None:
        show(self, line)
        # Piped output would otherwise wait for a full block, and whoever waits for the address with it.
        self.stdout.flush()
