# ruff: noqa: T201
"""(f) The change feed's fan-out and (g) the API's lists: what `feed_fanout.py` and `api_lists.py` say, as figures."""

import os
import re
import subprocess
import sys
from typing import Any

from bench.stage import ROOT


def feed(database: str, seconds: float) -> dict[str, Any]:
    """By clients and changes a second: what was missed, latencies in milliseconds, memory."""
    heads = ("clients", "rate", "messages", "told", "missed", "p50_ms", "p99_ms", "most_ms", "cpu_percent")
    found = {}
    for line in _said("feed_fanout.py", database, "--seconds", str(seconds)):
        numbers = line.split()
        if len(numbers) > len(heads) and numbers[0].isdecimal():
            row = dict(zip(heads, map(float, numbers), strict=False))
            found[f"{row['clients']:.0f} clients, {row['rate']:.0f} changes/s"] = row
    return found


def lists(database: str) -> dict[str, Any]:
    """By list: the median in milliseconds, over 100,000 skills."""
    pattern = re.compile(r"(.{36}) +\S* rows +([\d.]+) ms +([\d.]+) ms CPU")
    found = [pattern.match(line) for line in _said("api_lists.py", database)]
    return {match[1].strip(): float(match[2]) for match in found if match}


def _said(script: str, database: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "bench" / script), *arguments]
    command += ["--database", database] if database else []
    environment = {**os.environ, "DJANGO_ENV_FILE": "", "REDIS_URL": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print("".join(f"  {line}\n" for line in ended.stdout.splitlines()), flush=True)
    if ended.returncode and ended.stderr:  # 1 without a word: a figure is over its limit, which the figures say
        raise RuntimeError(ended.stderr[-2000:])
    return ended.stdout.splitlines()
