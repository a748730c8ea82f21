"""`python -m marketplace_sync.tests.support.impatient SECONDS runsync`: manage.py with a short database time-out."""

import sys

from django.core.management import execute_from_command_line

from marketplace_sync.daemon import database

if __name__ == "__main__":
    database.PATIENCE_SECONDS = float(sys.argv.pop(1))
    execute_from_command_line(sys.argv)
