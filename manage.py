#!/usr/bin/env python
"""The project's command line: `python manage.py help`."""

import os
import signal
import sys


def main() -> None:
    """Run a command. Ctrl-C ends one that does not care for it in one line, also while it starts."""
    try:
        from django.core.management import execute_from_command_line

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atomproject.settings")
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
