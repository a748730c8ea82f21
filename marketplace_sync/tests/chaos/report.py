"""The record of a campaign, and the table that people read."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marketplace_sync.simulator.faults import FAULTS
from marketplace_sync.tests.chaos.script import TROUBLES

# This module writes the text between these lines of the docs.
BEGIN, END = "<!-- the record begins -->", "<!-- the record ends -->"

Row = dict[str, Any]  # one run: `database`, and the fields of `world.Result` without `logs`
Record = dict[str, Any]


def record_of(rows: Iterable[Row], command: str) -> Record:
    """Return a campaign in figures. `troubles`: by name and database, the runs affected, how often, runs survived."""
    rows = list(rows)
    databases = sorted({row["database"] for row in rows})
    troubles: dict[str, dict[str, list[int]]] = {}
    for name in (*FAULTS, *TROUBLES):
        troubles[name] = {}
        for database in databases:
            hit = [row for row in rows if row["database"] == database and row["struck"].get(name)]
            survived = sum(not row["violations"] for row in hit)
            troubles[name][database] = [len(hit), sum(row["struck"][name] for row in hit), survived]
    return {
        "command": command,
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "databases": {name: _totals([row for row in rows if row["database"] == name]) for name in databases},
        "troubles": troubles,
    }


def _totals(rows: list[Row]) -> dict[str, Any]:
    seeds = sorted(row["seed"] for row in rows)
    settled = sorted(row["settled_after"] for row in rows)
    notes: Counter[str] = Counter()
    for row in rows:
        notes.update(row["notes"])
    return {
        "runs": len(rows), "seeds": [seeds[0], seeds[-1]], "failed": [row["seed"] for row in rows if row["violations"]],
        "seconds": round(sum(row["seconds"] for row in rows)), "samples": sum(row["samples"] for row in rows),
        "changes": sum(row["changes"] for row in rows),
        "settled_after": {"median": settled[len(settled) // 2], "longest": settled[-1]},
        "slowest_dead": max(row["slowest_dead"] for row in rows),
        "slowest_stream": max(row["slowest_stream"] for row in rows),
        "notes": dict(sorted(notes.items())),
    }  # fmt: skip


def text_of(record: Record) -> str:
    """Return the record in Markdown: what was run, and the table of troubles."""
    databases: Mapping[str, Any] = record["databases"]
    runs = sum(one["runs"] for one in databases.values())
    failed = sum(len(one["failed"]) for one in databases.values())
    lines = [
        f"{runs} runs, {failed} failed: `{record['command']}` on {record['machine']}.",
        "",
        "| database | runs | seeds | failed | status samples | changes followed | in sync after, s: median, longest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in databases.items():
        lines.append(
            f"| {name} | {one['runs']} | {one['seeds'][0]} to {one['seeds'][1]} | {len(one['failed'])} |"
            f" {one['samples']:,} | {one['changes']:,} |"
            f" {one['settled_after']['median']:.1f}, {one['settled_after']['longest']:.1f} |"
        )
    lines += [
        "",
        f"| trouble | what it is | {' | '.join(f'{name}: runs struck, times, survived' for name in databases)} |",
        f"| --- | --- |{' --- |' * len(databases)}",
    ]
    for name, struck in record["troubles"].items():
        what = FAULTS[name].description if name in FAULTS else TROUBLES[name]
        cells = [f"{hit}, {times:,}, {survived}" if hit else "none" for hit, times, survived in struck.values()]
        lines.append(f"| `{name}` | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(record: Record, at: Path) -> None:
    """Keep the record as JSON, one trouble per line, and put it into the Markdown file beside it where there is one."""
    head = {key: value for key, value in record.items() if key != "troubles"}
    troubles = ",\n".join(f"  {json.dumps(name)}: {json.dumps(cell)}" for name, cell in record["troubles"].items())
    text = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    at.write_text(f'{text},\n "troubles": {{\n{troubles}\n }}\n}}\n')
    page = at.with_suffix(".md")
    if page.exists():
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text_of(record)}\n\n{END}{rest.partition(END)[2]}")
