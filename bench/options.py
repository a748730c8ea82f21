# ruff: noqa: T201
"""The command-line options that all measurements share, and the output of their results."""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

from bench.stage import Databases

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")


def parser(about: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--database", default="", help=f"a PostgreSQL server's URL ({POSTGRES}); without it: SQLite")
    options.add_argument("--repeat", type=int, default=5)
    return options


def run(options: argparse.ArgumentParser, name: str, measure: Callable[..., dict[str, Any]], *wanted: str) -> None:
    """Run one measurement on one database, and print the result as JSON."""
    chosen = options.parse_args()
    with Databases(chosen.database or None) as databases:
        print(json.dumps({name: measure(databases, **{key: getattr(chosen, key) for key in wanted})}, indent=1))
