# ruff: noqa: T201
"""`make bench`: all pieces on both databases, side by side; a table, JSON and plots. See bench/README.md."""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from bench import fanout, flood, full_syncs, latency, sustained
from bench.options import POSTGRES
from bench.plots import draw
from bench.report import table
from bench.stage import ROOT, Databases, machine, raise_file_limit

PIECES = ("sustained", "latency", "flood", "full_syncs", "feed", "lists")
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="smaller measurements, each run once: about 5 minutes")
    options.add_argument("--repeat", type=int, default=0, help="runs of each kind (5; quick: 1)")
    options.add_argument("--name", default="", help="name of the result's files (the date and the commit)")
    options.add_argument("--keep", action="store_true", help="write to bench/results, not to bench/results/local")
    options.add_argument("--note", default="", help="a note on the machine for the report, such as other work on it")
    options.add_argument("--pieces", nargs="+", choices=PIECES, default=PIECES, help="only these pieces")
    options.add_argument("--only", choices=("sqlite", "postgresql"), help="one database")
    chosen = options.parse_args()
    raise_file_limit()
    repeat = chosen.repeat or (1 if chosen.quick else 5)
    began = time.monotonic()
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "quick": chosen.quick,
        "repeat": repeat, "note": chosen.note, "machine": machine(),
    }  # fmt: skip
    for vendor, url in servers(chosen.only):
        result[vendor] = measure(url, repeat, chosen.pieces, quick=chosen.quick)
    result["machine"]["load_after"] = machine()["load_before"]
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    folder = RESULTS if chosen.keep else RESULTS / "local"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / (chosen.name or f"{result['at'][:10]}-{result['commit']}")
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(result))
    stem.with_suffix(".svg").write_text(draw(result))
    print(f"\n{table(result)}\nWritten: {stem.relative_to(ROOT)}.json, .md, .svg, in {result['minutes']} minutes.")


def measure(url: str, repeat: int, pieces: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Measure all pieces on one database."""
    found: dict[str, Any] = {}
    messages = 5_000 if quick else 20_000
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
    with Databases(url or None) as databases:
        work: dict[str, Callable[[], Any]] = {
            "sustained": lambda: sustained.measure(databases, messages=messages, over=messages // 4, repeat=repeat),
            "latency": lambda: latency.measure(databases, seconds=2, repeat=repeat),
            "flood": lambda: flood.measure(databases, messages=messages, repeat=repeat),
            "full_syncs": lambda: full_syncs.measure(databases, skills=sizes, repeat=repeat),
            "feed": lambda: fanout.feed(url, 5 if quick else 15),
            "lists": lambda: fanout.lists(url),
        }
        for piece in PIECES:
            if piece in pieces and not (quick and piece == "lists"):
                print(f"{databases.vendor}: {piece}", flush=True)
                found[piece] = work[piece]()
    return found


def servers(only: str | None) -> list[tuple[str, str]]:
    """Return the databases to measure on: SQLite, and PostgreSQL where one answers."""
    found = [("sqlite", "")]
    if only != "sqlite":
        try:
            import psycopg

            psycopg.connect(POSTGRES, connect_timeout=5).close()
        except Exception as error:  # noqa: BLE001 - without a server, or a driver, there is nothing to measure there
            print(f"PostgreSQL does not answer at TEST_POSTGRES_URL, so SQLite alone is measured: {error}")
        else:
            found.append(("postgresql", POSTGRES))
    return [(vendor, url) for vendor, url in found if only in (None, vendor)]


def commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


if __name__ == "__main__":
    main()
