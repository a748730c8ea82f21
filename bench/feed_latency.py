# ruff: noqa: T201
"""Measure the time from the marketplace's message to the row on the overview page in a real browser.

    python bench/feed_latency.py                                        # SQLite, no Redis
    python bench/feed_latency.py --redis redis://127.0.0.1:6379/0       # without and with hints
    python bench/feed_latency.py --database postgres://u:p@host/db      # PostgreSQL, in a scratch database beside db

Daemon, web server (uvicorn) and Chromium are processes of their own; the simulated marketplace runs in this one, which
notes the time just before each message is sent. The browser notes when the frame with the row has been painted.
Messages come one by one, at random distances. Exit 1 when a median is over its target, or a change was not shown.
"""

import argparse
import asyncio
import os
import random
import secrets
import statistics
import subprocess
import sys
import time
from shutil import which
from typing import Any

from feed_fanout import ROOT, free_port, process, scratch_database, wait_for_port

sys.path.insert(0, str(ROOT))
from playwright.async_api import async_playwright

from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer

TARGETS_MS = {True: 150.0, False: 700.0}  # with hints by Redis, without
WARM_UP = 5
PATIENCE = 60.0
# Notes when the browser has painted a row that names a change of ours: milliseconds since 1970.
WATCH = """
    window.shown = {};
    new MutationObserver((changes) => {
        for (const row of changes.flatMap((change) => [...change.addedNodes])) {
            const number = /version: bench-(\\d+)/.exec(row.textContent ?? "")?.[1];
            if (number) {
                requestAnimationFrame(() => setTimeout(() => {
                    window.shown[number] = performance.timeOrigin + performance.now();
                }));
            }
        }
    }).observe(document.getElementById("mm-feed"), { childList: true });
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--database", help="a PostgreSQL server's URL; without it: SQLite")
    options.add_argument("--redis", default="", help="a Redis: measure with hints as well")
    options.add_argument("--changes", type=int, default=200)
    options.add_argument("--role", choices=("prepare",), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.role == "prepare":
        prepare()
        return
    vendor = "PostgreSQL" if chosen.database else "SQLite"
    print(f"{vendor}, {chosen.changes} changes, load of the machine before: {os.getloadavg()[0]:.1f} "
          f"on {os.cpu_count()} cores")  # fmt: skip
    print(f"{'':12}{'shown':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'target p50':>12}", flush=True)
    missed = False
    for redis in ("", chosen.redis) if chosen.redis else ("",):
        with scratch_database(chosen.database) as url:
            delays = asyncio.run(measure(url, redis, chosen.changes))
        p50 = statistics.median(delays)
        p99 = statistics.quantiles(delays, n=100, method="inclusive")[98]
        target = TARGETS_MS[bool(redis)]
        label = "with Redis" if redis else "no Redis"
        print(f"{label:12}{len(delays):>8}{p50:>9.0f}{p99:>9.0f}{max(delays):>9.0f}{target:>12.0f}", flush=True)
        missed |= p50 > target or len(delays) < chosen.changes
    sys.exit(1 if missed else 0)


async def measure(database: str, redis: str, changes: int) -> list[float]:
    """Milliseconds from send to paint, of each change that was shown."""
    token, port, dice = secrets.token_hex(20), free_port(), random.Random(1)
    market = Marketplace([{"skill_id": f"s{number}", "name": f"Skill {number}"} for number in range(50)])
    async with SimulatorServer(market, token, requests_per_minute=0) as server:
        environment = {
            **os.environ, "DJANGO_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings",
            "DATABASE_URL": database, "REDIS_URL": redis, "DJANGO_SECRET_KEY": secrets.token_hex(32),
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1", "LOG_LEVEL": "ERROR",
            "ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": token,
        }  # fmt: skip
        prepared = [sys.executable, __file__, "--role", "prepare"]
        await asyncio.to_thread(subprocess.run, prepared, env=environment, cwd=ROOT, check=True)
        web = [sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--port", str(port)]
        web += ["--lifespan", "off", "--log-level", "warning", "--timeout-graceful-shutdown", "2"]
        with process([sys.executable, str(ROOT / "manage.py"), "runsync"], environment), process(web, environment):
            await asyncio.to_thread(wait_for_port, port)
            async with async_playwright() as playwright, asyncio.timeout(PATIENCE + changes):
                return await shown(playwright, f"http://127.0.0.1:{port}", market, changes, dice)


async def shown(playwright: Any, base: str, market: Marketplace, changes: int, dice: random.Random) -> list[float]:
    browser = await playwright.chromium.launch(
        executable_path=which("chromium") or which("chromium-browser") or which("google-chrome"),
        args=["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
    )
    page = await browser.new_page(base_url=base)
    await page.goto("/admin/login/")
    await page.fill("[name=username]", "bench")
    await page.fill("[name=password]", "bench")
    await page.click("#login-form [type=submit]")
    # The state of the mirror, and that of the page's own connection.
    for place, text in (("#mm-state", "live"), ("#mm-feed-live", "following")):
        question = f"document.querySelector('{place}')?.textContent.trim() === '{text}'"
        await page.wait_for_function(question, timeout=PATIENCE * 1000)
    await page.evaluate(WATCH)
    sent = {}
    for number in range(WARM_UP + changes):
        await asyncio.sleep(dice.uniform(0.1, 0.4))
        sent[number] = time.time() * 1000
        skill_id = f"s{number % 50}"
        market.put_skill({"skill_id": skill_id, "name": f"Skill {number % 50}", "version": f"bench-{number}"})
    await page.wait_for_function(f"window.shown[{max(sent)}]", timeout=PATIENCE * 1000)
    seen = await page.evaluate("window.shown")
    await browser.close()
    return [seen[str(number)] - at for number, at in sent.items() if number >= WARM_UP and str(number) in seen]


def prepare() -> None:
    """Create an empty mirror, and a user who may see it."""
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    User.objects.create_superuser("bench", password="bench")


if __name__ == "__main__":
    main()
