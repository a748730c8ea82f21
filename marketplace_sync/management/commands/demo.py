"""`manage.py demo`: the whole system on this machine, to see the mirror work."""

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
from marketplace_sync.management.marketplace import environment_errors, fail, print_unredacted
from marketplace_sync.management.optional import SIMULATOR_MISSING, has_simulator


class Command(BaseCommand):
    help = "Run a simulated marketplace, the daemon and the web server together, on loopback, until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the web server's port (%(default)s, or a free one)")

    def handle(self, *, port: int, **options: Any) -> None:
        if not has_simulator():
            raise CommandError(SIMULATOR_MISSING)
        self.stop = asyncio.Event()
        if not 0 <= port <= 65_535:
            raise CommandError(f"--port is {port}. Use a number from 0 (any free port) to 65535.")
        if getattr(settings, "ATOM_SAAS_API_URL", ""):
            raise CommandError(
                "ATOM_SAAS_API_URL is set: the demo would fill that marketplace's mirror with simulated skills. "
                "Unset it, or run the demo in a copy of the project without that .env."
            )
        if problems := environment_errors():
            fail(self, *map(str, problems))
        try:
            free = free_port(port)
            if port not in (0, free):
                self.print_line(f"Port {port} is in use by another program. The demo's web server uses port {free}.")
            self.print_line(database_line())
            call_command("migrate", verbosity=0, skip_checks=True)
            password, key = make_admin(), make_agent()
            connection.close()
            asyncio.run(self.watch(free, password, key))
        except DemoError as failure:
            raise CommandError(str(failure)) from None

    async def watch(self, port: int, password: str, key: str) -> None:
        demo = Demo(port, self.print_line, self.stop)

        def end() -> None:
            if self.stop.is_set():
                demo.kill()
                return
            self.stop.set()
            self.print_line("Stopping. Press Ctrl-C again to kill all processes.")

        # SIGHUP: the terminal is gone. The children run in sessions of their own, and would not receive it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, end)
        await demo.run(password, key)
        self.print_line("Stopped.")

    def print_line(self, line: str) -> None:
        """Print one line. End the demo once nothing reads its output (`| head`, a closed terminal)."""
        try:
            print_unredacted(self, line)
            self.stdout.flush()
        except OSError:
            self.stop.set()
            # What is still in the buffer would fail again at exit.
            self.stdout = OutputWrapper(open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
            os.dup2(self.stdout.fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
