"""`manage.py demo`: everything at once on this machine, to see the mirror work."""

import asyncio
import os
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.db import connection

from marketplace_sync.demo import Demo, DemoError, database_line, free_port, make_admin, make_agent
from marketplace_sync.management.marketplace import environment_errors, fail, show
from marketplace_sync.management.optional import SIMULATOR_MISSING, has_simulator


class Command(BaseCommand):
    help = "A simulated marketplace, the daemon and the web server in one, on loopback, until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the web server's port (%(default)s, or a free one)")

    def handle(self, *, port: int, **options: Any) -> None:
        if not has_simulator():
            raise CommandError(SIMULATOR_MISSING)
        self.stop = asyncio.Event()
        if not 0 <= port <= 65_535:
            raise CommandError(f"--port is {port}; a port is a number from 0 (any free one) to 65535.")
        if getattr(settings, "ATOM_SAAS_API_URL", ""):
            raise CommandError(
                "ATOM_SAAS_API_URL is set: the demo would fill that marketplace's mirror with simulated skills. "
                "Unset it, or run the demo in a copy of the project without that .env."
            )
        if faults := environment_errors():
            fail(self, *map(str, faults))
        try:
            free = free_port(port)
            if port not in (0, free):
                self.say(f"Port {port} is in use by another program: this demo's web server takes {free}.")
            self.say(database_line())
            call_command("migrate", verbosity=0, skip_checks=True)
            password, key = make_admin(), make_agent()
            connection.close()
            asyncio.run(self.watch(free, password, key))
        except DemoError as failure:
            raise CommandError(str(failure)) from None

    async def watch(self, port: int, password: str, key: str) -> None:
        demo = Demo(port, self.say, self.stop)

        def end() -> None:
            if self.stop.is_set():
                demo.kill()
                return
            self.stop.set()
            self.say("Stopping; Ctrl-C again ends everything at once.")

        # SIGHUP: the terminal is gone, and the children, in sessions of their own, would not hear of it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, end)
        await demo.run(password, key)
        self.say("Stopped.")

    def say(self, line: str) -> None:
        """Write one line. Once nobody reads them any more (`| head`, a closed terminal) the demo ends."""
        try:
            show(self, line)
            self.stdout.flush()
        except OSError:
            self.stop.set()
            # What is still in the buffer would fail once more at exit.
            self.stdout = OutputWrapper(open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
            os.dup2(self.stdout.fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
