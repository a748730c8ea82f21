"""Random troubles against the whole daemon: one run a seed, on a database of the campaign's own.

A run that fails prints what was violated and how to run it again; the exit status is then 1.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from marketplace_sync.tests.chaos.database import Scratch, scratch
from marketplace_sync.tests.chaos.report import record_of, write
from marketplace_sync.tests.chaos.script import Script, script_of

MODULE = "marketplace_sync.tests.chaos"
# Nothing of the developer's own takes part.
_OURS = ("ATOM_SAAS_", "FEED_", "AUDIT_", "RUNS_", "COMMANDS_", "DEAD_LETTERS_", "DJANGO_", "LOG_")
_ENVIRONMENT = {
    "DJANGO_ENV_FILE": "", "DJANGO_SECRET_KEY": "of-the-campaign-and-of-nothing-else-0123456789-ab",
    "DJANGO_SETTINGS_MODULE": "atomproject.settings", "REDIS_URL": "",
}  # fmt: skip


def main() -> int:
    options = _options()
    if options.script:
        for seed in _seeds(options):
            _print_line(str(script_of(seed, postgres=options.database[0] != "sqlite")))
        return 0
    if len(options.database) > 1:
        return _side_by_side(options)
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    with scratch(options.database[0]) as own:
        os.environ["DATABASE_URL"] = own.url
        _set_up()
        rows = asyncio.run(_campaign(own, options))
    if options.record is not None:
        write(record_of(rows, _command(options)), options.record)
    return 1 if any(row["violations"] for row in rows) else 0


def _options() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    asked.add_argument("--runs", type=int, default=10, help="on each database")
    asked.add_argument("--seed", type=int, default=1, help="of the first run; each next one has the next seed")
    asked.add_argument(
        "--database", nargs="+", default=["sqlite"], help="sqlite, and the URL of a PostgreSQL to make a database on"
    )
    asked.add_argument("--script", action="store_true", help="print what the runs would do, and do nothing")
    asked.add_argument("--logs", action="store_true", help="print the logs of the daemons of a failed run")
    asked.add_argument("--record", type=Path, help="keep the figures there as JSON, and in the .md beside it")
    asked.add_argument("--rows", type=Path, help="keep each run there, a line of JSON each")
    return asked.parse_args()


def _seeds(options: argparse.Namespace) -> range:
    return range(options.seed, options.seed + options.runs)


def _side_by_side(options: argparse.Namespace) -> int:
    """Each database in a process of its own, for Django has one; then the record of all of them."""
    with tempfile.TemporaryDirectory(prefix="chaos-rows-") as folder:
        files = [Path(folder) / f"{number}.jsonl" for number in range(len(options.database))]
        same = ["--runs", str(options.runs), "--seed", str(options.seed), *(["--logs"] if options.logs else [])]
        running = [
            subprocess.Popen([sys.executable, "-m", MODULE, *same, "--database", database, "--rows", str(file)])
            for database, file in zip(options.database, files, strict=True)
        ]
        statuses = [process.wait() for process in running]
        rows = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    if options.record is not None and rows:
        write(record_of(rows, _command(options)), options.record)
    return max(statuses)


def _command(options: argparse.Namespace) -> str:
    databases = " ".join("sqlite" if url == "sqlite" else "postgres://..." for url in options.database)
    return f"python -m {MODULE} --runs {options.runs} --seed {options.seed} --database {databases}"


def _set_up() -> None:
    """Django, the tables, and the quick clocks."""
    import django
    from django.core.management import call_command
    from django.db import connections

    from marketplace_sync.tests.chaos.nursery import import_all, quicken

    django.setup()
    call_command("migrate", verbosity=0, skip_checks=True)
    connections.close_all()
    import_all()
    quicken()


async def _campaign(own: Scratch, options: argparse.Namespace) -> Sequence[dict[str, object]]:
    from marketplace_sync.tests.chaos.stage import Nursery
    from marketplace_sync.tests.chaos.world import World

    database = "PostgreSQL" if own.postgres else "SQLite"
    nursery = Nursery(own.url)
    await nursery.start()
    rows: list[dict[str, object]] = []
    began = time.monotonic()
    try:
        world = World(own, nursery)
        for seed in _seeds(options):
            script = script_of(seed, postgres=own.postgres)
            row = asdict(await world.run(script))
            logs = row.pop("logs")
            rows.append({"database": database, **row})
            if options.rows is not None:
                with options.rows.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
            verdict = "VIOLATED" if row["violations"] else "ok"
            notes = "".join(f"; {name}: {times}" for name, times in row["notes"].items())
            _print_line(
                f"{database} seed {seed} {verdict}: {row['seconds']:.1f} s, in sync {row['settled_after']:.1f} s after,"
                f" {row['changes']} changes followed, {row['samples']} samples{notes}"
            )
            if row["violations"]:
                _print_failure(script, row["violations"], logs if options.logs else {}, options)
    finally:
        await nursery.stop()
    failed = [row["seed"] for row in rows if row["violations"]]
    _print_line(f"{database}: {len(rows)} runs in {time.monotonic() - began:.0f} s, failed: {failed or 'none'}")
    return rows


def _print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _print_failure(
    script: Script, violations: Sequence[str], logs: dict[str, str], options: argparse.Namespace
) -> None:  # fmt: skip
    lines = [f"    {text}" for text in violations]
    lines.append(f"    Again: python -m {MODULE} --runs 1 --seed {script.seed} --database {options.database[0]} --logs")
    lines += [f"    {line}" for line in str(script).splitlines()]
    for name, text in logs.items():
        lines += [f"    --- {name}", *(f"    {line}" for line in text.splitlines())]
    _print_line("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
