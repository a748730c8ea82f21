# ruff: noqa: T201
"""(f) The change feed's fan-out and (g) the API's lists: figures from `feed_fanout.py` and `api_lists.py`."""

import os
import re
import subprocess
import sys
from typing import Any

from bench.stage import ROOT


def feed(database: str, seconds: float) -> dict[str, Any]:
    """Return missed changes, latencies in milliseconds and memory, by clients and changes per second."""
    heads = ("clients", "rate", "messages", "received", "missed", "p50_ms", "p99_ms", "most_ms", "cpu_percent")
    found = {}
    for line in _output("feed_fanout.py", database, "--seconds", str(seconds)):
        numbers = line.split()
        if len(numbers) > len(heads) and numbers[0].isdecimal():
            row = dict(zip(heads, map(float, numbers), strict=False))
            found[f"{row['clients']:.0f} clients, {row['rate']:.0f} changes/s"] = row
    return found


def lists(database: str) -> dict[str, Any]:
    """Return the median in milliseconds per list, over 100,000 skills."""
    pattern = re.compile(r"(.{36}) +\S* rows +([\d.]+) ms +([\d.]+) ms CPU")
    found = [pattern.match(line) for line in _output("api_lists.py", database)]
    return {match[1].strip(): float(match[2]) for match in found if match}


def _output(script: str, database: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "bench" / script), *arguments]
    command += ["--database", database] if database else []
    environment = {**os.environ, "DJANGO_ENV_FILE": "", "REDIS_URL": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print("".join(f"  {line}\n" for line in ended.stdout.splitlines()), flush=True)
    if ended.returncode and ended.stderr:  # 1 without output: a figure exceeds its limit, as the figures show
        raise RuntimeError(ended.stderr[-2000:])
    return ended.stdout.splitlines()
