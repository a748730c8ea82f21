# ruff: noqa: T201
"""`make bench`: all pieces on both databases, side by side; a table, JSON and plots. See bench/README.md."""

import argparse
import json
import subprocess
import time
from datetime import UTC, datetime
from typing import Any

from bench import fanout, flood, latency, passes, sustained
from bench.options import POSTGRES
from bench.plots import draw
from bench.report import table
from bench.stage import ROOT, Databases, machine, raise_file_limit

RESULTS = ROOT / "bench" / "results"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="less of everything: some 3 minutes, and rougher")
    options.add_argument("--repeat", type=int, default=0, help="runs of each kind (5; quick: 1)")
    options.add_argument("--name", default="", help="of the result's files; without it: the day and the commit")
    options.add_argument("--keep", action="store_true", help="in bench/results, to be committed; else in results/local")
    options.add_argument("--note", default="", help="what else is to be known of the machine, such as who shares it")
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
        result[vendor] = measure(url, repeat, quick=chosen.quick)
    result["machine"]["load_after"] = machine()["load_before"]
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    folder = RESULTS if chosen.keep else RESULTS / "local"
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / (chosen.name or f"{result['at'][:10]}-{result['commit']}")
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(result))
    stem.with_suffix(".svg").write_text(draw(result))
    print(f"\n{table(result)}\nWritten: {stem.relative_to(ROOT)}.json, .md, .svg, in {result['minutes']} minutes.")


def measure(url: str, repeat: int, *, quick: bool) -> dict[str, Any]:
    """All pieces on one database."""
    found: dict[str, Any] = {}
    with Databases(url or None) as databases:
        print(f"{databases.vendor}: sustained", flush=True)
        messages = 5_000 if quick else 20_000
        found["sustained"] = sustained.measure(databases, messages=messages, over=messages // 4, repeat=repeat)
        print(f"{databases.vendor}: latency", flush=True)
        found["latency"] = latency.measure(databases, seconds=2 if quick else 4, repeat=repeat)
        print(f"{databases.vendor}: floods", flush=True)
        found["flood"] = flood.measure(databases, messages=messages, repeat=repeat)
        print(f"{databases.vendor}: passes", flush=True)
        sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
        found["passes"] = passes.measure(databases, skills=sizes, repeat=repeat)
    print(f"{databases.vendor}: feed", flush=True)
    found["feed"] = fanout.feed(url, 5 if quick else 15)
    if not quick:
        print(f"{databases.vendor}: lists", flush=True)
        found["lists"] = fanout.lists(url)
    return found


def servers(only: str | None) -> list[tuple[str, str]]:
    """The databases to measure on: SQLite, and PostgreSQL where one answers."""
    found = [("sqlite", "")]
    if only != "sqlite":
        try:
            import psycopg

            psycopg.connect(POSTGRES, connect_timeout=5).close()
        except Exception as fault:  # noqa: BLE001 - without a server, or a driver, there is nothing to measure there
            print(f"PostgreSQL does not answer at TEST_POSTGRES_URL, so SQLite alone is measured: {fault}")
        else:
            found.append(("postgresql", POSTGRES))
    return [(vendor, url) for vendor, url in found if only in (None, vendor)]


def commit() -> str:
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


if __name__ == "__main__":
    main()
