# ruff: noqa: T201
"""Measure the CPU and time of one message within the process, without socket and queue, in microseconds.

Decoding, then planning and writing in batches (`mirror.plan`, `mirror.apply`), one after the other in one thread; the
daemon does the first in its loop, and of large batches the second and third in two threads.
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import django

from bench.options import parser
from bench.stage import Databases
from bench.workload import write_messages


def measure(raws: list[bytes], batch: int) -> dict[str, tuple[float, ...]]:
    """By step: CPU and seconds of one message, in microseconds."""
    from datetime import UTC, datetime

    from django.db import connections

    from marketplace_sync.daemon.arrivals import Arrivals
    from marketplace_sync.daemon.memory import keep_small
    from marketplace_sync.mirror.apply import apply_planned
    from marketplace_sync.mirror.arrived import Arrived
    from marketplace_sync.mirror.lease import acquire
    from marketplace_sync.mirror.plan import plan_batch
    from marketplace_sync.models import FeedChange
    from marketplace_sync.protocol.messages import decode_message

    lease = acquire("bench:1")
    arrivals, took = Arrivals(lease.epoch), Took()
    keep_small()
    now = datetime.now(UTC)
    events: Any = took("decode", lambda: [decode_message(raw, server_now=now, is_text=True) for raw in raws])
    items = [Arrived(event, arrivals.next(), FeedChange.Source.STREAM) for event in events]
    for start in range(0, len(items), batch):
        plan = took("plan", plan_batch, items[start : start + batch])
        took("write", apply_planned, plan, lease)
    # And a listing in which every skill is unchanged.
    last = {event.skill_id: event for event in events}.values()
    rows = [Arrived(event, arrivals.next(), FeedChange.Source.LISTING, polled=True) for event in last]
    apply_planned(plan_batch(rows), lease)
    for start in range(0, len(rows), 1000):
        took("plan a row that is unchanged", plan_batch, rows[start : start + 1000])
    connections.close_all()
    counts = dict.fromkeys(took.spent, len(items)) | {"plan a row that is unchanged": len(rows)}
    return {step: tuple(value / counts[step] * 1e6 for value in spent) for step, spent in took.spent.items()}


class Took:
    """CPU and seconds spent, by step."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}

    def __call__(self, step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        cpu, began = time.thread_time(), time.monotonic()
        made = work(*arguments)
        before = self.spent.get(step, (0.0, 0.0))
        self.spent[step] = (before[0] + time.thread_time() - cpu, before[1] + time.monotonic() - began)
        return made


if __name__ == "__main__":
    _options = parser(__doc__)
    _options.add_argument("--messages", type=int, default=20_000)
    _options.add_argument("--over", type=int, default=5_000, help="skills that the messages are about")
    _options.add_argument("--batch", type=int, default=8_000)
    _chosen = _options.parse_args()
    with Databases(_chosen.database or None) as _databases, _databases.stage() as _stage:
        _file = _stage.folder / "messages.jsonl"
        write_messages(_file, _chosen.messages, _chosen.over)
        os.environ |= {
            "DJANGO_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings", "LOG_LEVEL": "WARNING",
            "DATABASE_URL": _stage.url, "DJANGO_SECRET_KEY": secrets.token_hex(32),
        }  # fmt: skip
        django.setup()
        for _step, (_cpu, _seconds) in measure(_file.read_bytes().splitlines(), _chosen.batch).items():
            print(f"{_databases.vendor}, {_step}: {_cpu:.1f} us CPU, {_seconds:.1f} us")
