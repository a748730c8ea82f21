"""`manage.py demo`: everything at once on this machine, to see the mirror work."""

import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from marketplace_sync.demo import AGENT, Demo, DemoFailed, make_admin, make_agent
from marketplace_sync.management.marketplace import environment_errors, fail, show


class Command(BaseCommand):
    help = "A simulated marketplace, the daemon and the web server in one, on loopback, until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the web server's port (%(default)s, or a free one)")

    def handle(self, *, port: int, **options: Any) -> None:
        if getattr(settings, "ATOM_SAAS_API_URL", ""):
            raise CommandError(
                "ATOM_SAAS_API_URL is set: the demo would fill that marketplace's mirror with simulated skills. "
                "Unset it, or run the demo in a copy of the project without that .env."
            )
        if faults := environment_errors():
            fail(self, *map(str, faults))
        call_command("migrate", verbosity=0, skip_checks=True)
        password = make_admin()
        self.say(f"Agent    {AGENT}, key {make_agent()}")
        connection.close()
        try:
            asyncio.run(self.watch(port, password))
        except DemoFailed as failure:
            raise CommandError(str(failure)) from None

    async def watch(self, port: int, password: str) -> None:
        stop = asyncio.Event()
        # SIGHUP: the terminal is gone, and the children, in sessions of their own, would not hear of it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Demo(port, self.say, stop).run(password)
        self.say("Stopped.")

    def say(self, line: str) -> None:
        show(self, line)
        self.stdout.flush()
