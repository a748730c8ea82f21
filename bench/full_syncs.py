# ruff: noqa: T201
"""(d) The first full sync of a catalogue and one of an unchanged catalogue, and (e) the daemon's memory.

Page size 1,000 and no request budget, so that neither is measured; the stream is off.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from bench.options import parser, run
from bench.stage import Databases, Stage, cpu_seconds, memory_mib, spread
from bench.workload import write_catalog

PAGE_SIZE = 1000
UNCHANGED = 3


def measure(databases: Databases, *, skills: list[int], repeat: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {}
    for size in skills:
        runs = found.setdefault(str(size), {})
        for _ in range(repeat if size < 50_000 else (repeat + 1) // 2):
            with databases.stage() as stage:
                catalog = stage.folder.parent / f"catalog-{size}.jsonl"
                if not catalog.exists():
                    write_catalog(catalog, size)
                figures = {"plain_seconds": plain(stage, catalog), **mirror(stage, catalog, size)}
            figures["first_to_plain"] = figures["first_seconds"] / figures["plain_seconds"]
            for name, value in figures.items():
                runs.setdefault(name, []).append(value)
            summary = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"  {databases.vendor} {size} skills: {summary}", flush=True)
    return {
        "page_size": PAGE_SIZE, "requests_per_minute": 0,
        **{size: {name: spread(values) for name, values in runs.items()} for size, runs in found.items()},
    }  # fmt: skip


def plain(stage: Stage, catalog: Path) -> float:
    """Return how many seconds fetching and the plain upsert take."""
    market, where = stage.market(catalog)
    warm(market, where, catalog)
    program = stage.start("bench.yardsticks", "fetch", where["api_url"], PAGE_SIZE)
    program.hear()
    did = program.hear()
    market.end()
    return (did["commits"][-1][0] - did["began"]) / 1e9


def mirror(stage: Stage, catalog: Path, size: int) -> dict[str, float]:
    market, where = stage.market(catalog)
    warm(market, where, catalog)
    # The next sync follows immediately.
    daemon = stage.daemon(where, "--no-websocket", ATOM_SAAS_SYNC_INTERVAL_MINUTES=0.002)
    ended = "SELECT started_at, finished_at FROM marketplace_sync_syncrun WHERE state = 'done' ORDER BY id"
    first = stage.until(lambda: stage.rows(ended)[:1], "the first sync has ended", daemon)[0]
    mark = "SELECT (SELECT feed_seq FROM marketplace_sync_lease), max(synced_at), count(*) FROM marketplace_sync_skill"
    before = stage.rows(mark)
    disturbed = len(stage.rows(ended))
    # That query reads the whole table, so the sync that runs meanwhile does not count.
    stage.until(lambda: len(stage.rows(ended)) > disturbed, "the disturbed sync has ended", daemon)
    used = cpu_seconds(daemon.pid)
    runs = stage.until(
        lambda: (rows := stage.rows(ended)[disturbed + 1 :])[UNCHANGED - 1 :] and rows,
        "syncs of the unchanged catalogue",
        daemon,
    )
    used = cpu_seconds(daemon.pid) - used
    if stage.rows(mark) != before or before[0][2] != size:
        raise AssertionError("a sync of an unchanged catalogue wrote skills")
    unchanged = sorted(seconds(run) for run in runs)
    memory = memory_mib(daemon.pid)
    return {
        "first_seconds": seconds(first), "unchanged_seconds": unchanged[len(unchanged) // 2],
        "unchanged_per_second": size / unchanged[len(unchanged) // 2],
        "unchanged_cpu_us": used / (size * len(runs)) * 1e6,  # per skill; the figure to compare on a busy machine
        "memory_mib": memory["now"], "most_memory_mib": memory["most"],
    }  # fmt: skip


def warm(market: Any, where: dict[str, str], catalog: Path) -> None:
    """Let the marketplace render its pages, whose cost is not measured."""
    import httpx2

    from bench.market import TOKEN

    with httpx2.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        page, pages = 1, 1
        while page <= pages:
            answer = http.get(f"{where['api_url']}/api/v1/skills?page={page}&page_size={PAGE_SIZE}")
            pages = answer.raise_for_status().json()["total_pages"]
            page += 1


def seconds(run: tuple[Any, ...]) -> float:
    began, ended = (datetime.fromisoformat(at) if isinstance(at, str) else at for at in run)
    return float((ended - began).total_seconds())


if __name__ == "__main__":
    _options = parser(__doc__)
    _options.add_argument("--skills", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    run(_options, "full_syncs", measure, "skills", "repeat")
