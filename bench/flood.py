# ruff: noqa: T201
"""(c) More than the daemon accepts: with its limit of 100 messages per second, and without a limit."""

import time
from typing import Any

from bench.options import parser, run
from bench.stage import Databases, Stage, spread
from bench.workload import write_messages


def measure(databases: Databases, *, messages: int, repeat: int) -> dict[str, Any]:
    """Return lost skills, seconds until in sync afterwards, and the longest wait for a pong, by limit on or off."""
    found: dict[str, list[dict[str, float]]] = {"limit on": [], "limit off": []}
    for _ in range(repeat):
        for name, limit in (("limit on", 100), ("limit off", 0)):
            with databases.stage() as stage:
                found[name].append(once(stage, messages, limit))
            print(f"  {databases.vendor} flood, {name}: {found[name][-1]}", flush=True)
    return {
        "messages": messages,
        **{name: {figure: spread([run[figure] for run in runs]) for figure in runs[0]} for name, runs in found.items()},
    }


def once(stage: Stage, count: int, limit: int) -> dict[str, float]:
    file = stage.folder / "messages.jsonl"
    last = write_messages(file, count, count // 4)
    market, where = stage.market(messages=file)
    # Its pings and its time-out are those of production, made short: a pong that is late is seen within 10 s.
    daemon = stage.daemon(
        where, ATOM_SAAS_WS_RATE_LIMIT=limit, ATOM_SAAS_WS_HEARTBEAT_INTERVAL=1, ATOM_SAAS_WS_PONG_TIMEOUT=5
    )
    stage.until(lambda: stage.state() == "live", "it is live", daemon)
    (syncs,) = stage.rows("SELECT count(*) FROM marketplace_sync_syncrun")[0]
    market.ask(do="send", count=count, rate=0)
    ended = time.monotonic()
    stage.until(lambda: stage.versions("marketplace_sync_skill") == last, "the mirror is in sync", daemon)
    in_sync_after = time.monotonic() - ended
    heard = market.ask(do="heard")
    (shed,) = stage.rows("SELECT shed FROM marketplace_sync_websocketstate")[0]
    (more,) = stage.rows("SELECT count(*) FROM marketplace_sync_syncrun")[0]
    return {
        "in_sync_after_seconds": round(in_sync_after, 2), "shed": shed, "syncs": more - syncs,
        "lost": sum(stage.versions("marketplace_sync_skill").get(key) != version for key, version in last.items()),
        "connections_lost": heard["connects"] - 1,
    }  # fmt: skip


if __name__ == "__main__":
    _options = parser(__doc__)
    _options.add_argument("--messages", type=int, default=20_000)
    run(_options, "flood", measure, "messages", "repeat")
