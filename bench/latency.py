# ruff: noqa: T201
"""(b) From a message's sending to its commit, at a steady rate: p50 and p99 in milliseconds."""

from typing import Any

from bench.options import parser, run
from bench.stage import Databases, Stage, percentile, spread
from bench.workload import write_catalog, write_messages

# (messages a second, who): what takes a message at a time is overloaded at 1,000.
ROUNDS = (
    (100, "update_or_create"), (100, "prototype"), (100, "mirror"),
    (1000, "prototype"), (1000, "mirror"),
)  # fmt: skip


def measure(databases: Databases, *, seconds: float, repeat: int, compress: bool = False) -> dict[str, Any]:
    """By rate and kind; the messages update a catalogue that is there already, each skill once."""
    p50: dict[str, list[float]] = {f"{kind} at {rate}/s": [] for rate, kind in ROUNDS}
    p99: dict[str, list[float]] = {name: [] for name in p50}
    for _ in range(repeat):
        for rate, kind in ROUNDS:
            with databases.stage() as stage:
                waits = once(stage, kind, rate, int(rate * seconds), compress)
            name = f"{kind} at {rate}/s"
            p50[name].append(percentile(waits, 0.5))
            p99[name].append(percentile(waits, 0.99))
            print(f"  {databases.vendor} {name}: p50 {p50[name][-1]:.2f} ms, p99 {p99[name][-1]:.2f} ms", flush=True)
    return {
        "seconds": seconds,
        "p50_ms": {name: spread(values) for name, values in p50.items()},
        "p99_ms": {name: spread(values) for name, values in p99.items()},
    }  # fmt: skip


def once(stage: Stage, kind: str, rate: int, count: int, compress: bool) -> list[float]:
    """Milliseconds from sending to commit, one for each message."""
    catalog, file = stage.folder / "catalog.jsonl", stage.folder / "messages.jsonl"
    write_catalog(catalog, count)
    last = write_messages(file, count, count)
    market, where = stage.market(catalog, file, compress=compress)
    if kind == "mirror":
        daemon = stage.daemon(where)
        stage.until(lambda: stage.state() == "live", "it is live", daemon)
        (first,) = stage.rows("SELECT feed_seq FROM marketplace_sync_lease")[0]
        sent = market.ask(do="send", count=count, rate=rate)["sent"]
        # One feed number a message, in order.
        query = "SELECT feed_seq FROM marketplace_sync_lease"
        stage.until(lambda: stage.rows(query)[0][0] >= first + count, "everything is in the feed", daemon)
        stored = stage.versions("marketplace_sync_skill")
        commits = [(at, seq - first) for at, seq in stage.commits(daemon) if seq > first]
    else:
        program = stage.start("bench.yardsticks", "fetch", where["api_url"], 1000)
        program.hear(), program.hear()
        program = stage.start("bench.yardsticks", kind, where["ws_url"], count)
        program.hear()
        sent = market.ask(do="send", count=count, rate=rate)["sent"]
        commits = program.hear()["commits"]
        stored = stage.versions("bench_plain_skill")
    if stored != last:
        raise AssertionError(f"{kind} lost something")
    waits, done = [], 0
    for at, total in commits:
        waits += [(at - began) / 1e6 for began in sent[done:total]]
        done = max(done, total)
    return waits


if __name__ == "__main__":
    _options = parser(__doc__)
    _options.add_argument("--seconds", type=float, default=5.0)
    _options.add_argument("--compress", action="store_true", help="the marketplace offers permessage-deflate")
    run(_options, "latency", measure, "seconds", "repeat", "compress")
