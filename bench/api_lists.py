# ruff: noqa: T201 - a script for a terminal
"""Measure the API's lists on 100,000 skills: the median time of each list, and its limit.

    python bench/api_lists.py                                     # SQLite, in a temporary file
    python bench/api_lists.py --database postgres://u:p@host/db   # PostgreSQL, in a scratch database made beside db

Whole requests are measured, in the process: login, throttle, query, count and JSON. Exit 1 when a median
is over its limit (100 ms on PostgreSQL, 200 ms on SQLite). On a busy machine look at the load and at the
second figure, this process's own CPU time: with SQLite that is all of it.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from marketplace_sync.models import Skill

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MS = {"sqlite": 200, "postgresql": 100}
SEED = 20260101
CATEGORIES = 25
# A language of 20,000 words, of which a few are in nearly every text: Zipf's law, as in real descriptions.
VOCABULARY = 20_000
DAWN = datetime(2026, 1, 1, tzinfo=UTC)

# What is asked: name, path, parameters. The words are those of `word()`: 1 is the commonest.
LISTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("first page", "/api/skills/", {}),
    ("500 per page", "/api/skills/", {"page_size": "500"}),
    ("middle page", "/api/skills/", {"page": "1000"}),
    ("last page", "/api/skills/", {"page": "2000"}),
    ("by cursor, 500 per page", "/api/skills/", {"cursor": "", "page_size": "500"}),
    ("by cursor, search: rare word", "/api/skills/", {"cursor": "", "search": "w9000x"}),
    ("by -name", "/api/skills/", {"ordering": "-name"}),
    ("by average_rating", "/api/skills/", {"ordering": "average_rating"}),
    ("by -average_rating", "/api/skills/", {"ordering": "-average_rating"}),
    ("by rating_count", "/api/skills/", {"ordering": "rating_count"}),
    ("by -rating_count", "/api/skills/", {"ordering": "-rating_count"}),
    ("by remote_updated_at", "/api/skills/", {"ordering": "remote_updated_at"}),
    ("by -remote_updated_at", "/api/skills/", {"ordering": "-remote_updated_at"}),
    ("category", "/api/skills/", {"category": "category-3"}),
    ("category by -average_rating", "/api/skills/", {"category": "category-3", "ordering": "-average_rating"}),
    ("common tag (1 in 3)", "/api/skills/", {"tag": "common"}),
    ("rare tag (1 in 1000)", "/api/skills/", {"tag": "rare"}),
    ("min_rating 1 (most)", "/api/skills/", {"min_rating": "1"}),
    ("min_rating 4.9 (few)", "/api/skills/", {"min_rating": "4.9"}),
    ("min_rating 4 by -remote_updated_at", "/api/skills/", {"min_rating": "4", "ordering": "-remote_updated_at"}),
    ("search: commonest word", "/api/skills/", {"search": "w1x"}),
    ("search: common word", "/api/skills/", {"search": "w10x"}),
    ("search: rare word", "/api/skills/", {"search": "w9000x"}),
    ("search: two common words", "/api/skills/", {"search": "w2x w10x"}),
    ("search: two characters", "/api/skills/", {"search": "w1"}),
    ("search: nothing found", "/api/skills/", {"search": "nowhere"}),
    ("search: last page of the commonest", "/api/skills/", {"search": "w1x", "page": "LAST"}),
    ("search by -average_rating", "/api/skills/", {"search": "w10x", "ordering": "-average_rating"}),
    ("search, category, tag, min_rating", "/api/skills/",
     {"search": "w2x", "category": "category-3", "tag": "common", "min_rating": "3"}),
    ("a skill", "/api/skills/bench/00050000/", {}),
    ("categories", "/api/categories/", {}),
    ("changes", "/api/changes/", {"limit": "1000"}),
    ("runs", "/api/admin/sync/runs/", {}),
    ("dead letters", "/api/admin/dead-letters/", {}),
    ("audit", "/api/admin/audit/", {}),
)  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--database", help="a PostgreSQL server's URL; without it: SQLite")
    options.add_argument("--skills", type=int, default=100_000)
    options.add_argument("--times", type=int, default=9, help="requests of each kind")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.inside:
        sys.exit(measure(chosen.skills, chosen.times))
    sys.exit(in_postgres(chosen.database) if chosen.database else in_sqlite())


def in_sqlite() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return again(f"sqlite:///{folder}/bench.sqlite3")


def in_postgres(url: str) -> int:
    import psycopg
    from psycopg import sql

    name = f"bench_api_lists_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            return again(urlsplit(url)._replace(path=f"/{name}").geturl())
        finally:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def again(url: str) -> int:
    """Return the command that runs this script with settings that name the scratch database."""
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "atomproject.settings"}
    return subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--inside"], env=environment, check=False
    ).returncode


def measure(skills: int, times: int) -> int:
    """Fill, ask, print; 1 when a median is over its limit."""
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client

    call_command("migrate", verbosity=0, skip_checks=True)
    begun = time.perf_counter()
    fill(skills)
    print(f"{connection.vendor}: {skills} skills in {time.perf_counter() - begun:.0f} s")
    limit = LIMIT_MS[connection.vendor]
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(get_user_model().objects.create_superuser("bench", password=None))
    slow = 0
    for name, path, parameters in LISTS:
        if parameters.get("page") == "LAST":
            count = client.get(path, {**parameters, "page": "1"}).json()["count"]
            parameters = {**parameters, "page": str(-(-count // 50))}
        taken, worked = [], []
        for _ in range(times):
            begun, cpu = time.perf_counter(), time.process_time()
            response = client.get(path, parameters)
            taken.append((time.perf_counter() - begun) * 1000)
            worked.append((time.process_time() - cpu) * 1000)
            if response.status_code != 200:
                sys.exit(f"{path}?{urlencode(parameters)}: {response.status_code} {response.content[:300]!r}")
        median = statistics.median(taken)
        slow += median > limit
        count = response.json().get("count", "")
        print(
            f"{name:36} {count!s:>7} rows {median:8.1f} ms {statistics.median(worked):8.1f} ms CPU"
            + ("  over the limit" if median > limit else ""),
            flush=True,
        )
    print(f"limit {limit} ms; over it: {slow}; load of the machine: {os.getloadavg()[0]:.1f}")
    return 1 if slow else 0


def word(rng: random.Random) -> str:
    """Return a word of an artificial language; its number is its rank."""
    return f"w{int(VOCABULARY ** rng.random())}x"


def fill(skills: int) -> None:
    from django.db import connection

    from marketplace_sync.models import Category, Skill

    rng = random.Random(SEED)
    categories = Category.objects.bulk_create([Category(name=f"category-{number}") for number in range(CATEGORIES)])
    batch: list[Skill] = []
    for skill in made_up(skills, [category.pk for category in categories], rng):
        batch.append(skill)
        if len(batch) == 2000:
            Skill.objects.bulk_create(batch)
            batch.clear()
    Skill.objects.bulk_create(batch)
    fill_records(5000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def fill_records(rows: int) -> None:
    """Create the runs, dead letters and changes of a busy month."""
    from marketplace_sync.models import DeadLetter, FeedChange, LeaseRow, SyncRun

    done = {"reason": "poll", "state": SyncRun.State.DONE, "started_at": DAWN, "finished_at": DAWN}
    SyncRun.objects.bulk_create([SyncRun(**done, listed=100_000) for _ in range(rows)], batch_size=1000)
    DeadLetter.objects.bulk_create(
        [
            DeadLetter(source="stream", code="missing", reason="required", head=b"x" * 4096, size=4096,
                       digest=str(number), first_seen_at=DAWN, last_seen_at=DAWN)
            for number in range(rows)
        ], batch_size=1000,
    )  # fmt: skip
    FeedChange.objects.bulk_create(
        [
            FeedChange(seq=number, kind="skill_updated", key="k", at=DAWN, source="stream", data={"name": "x" * 100})
            for number in range(1, rows + 1)
        ],
        batch_size=1000,
    )
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": rows})


def made_up(skills: int, category_ids: list[int], rng: random.Random) -> Iterator["Skill"]:
    """Skills like the real ones: 300 characters of description, 2 KB of code, four tags, most of them rated."""
    from marketplace_sync.models import Skill

    for number in range(skills):
        rated = rng.random() < 0.8
        fields: dict[str, Any] = {
            "skill_id": f"bench/{number:08}",
            "name": " ".join(word(rng) for _ in range(3)),
            "description": " ".join(word(rng) for _ in range(50)),
            "version": "1.0.0",
            "code": f"def skill_{number}(): ...\n" * 80,
            "command": "python",
            "python_packages": ["pandas>=1.3"],
            "tags": [word(rng) for _ in range(3)]
            + (["common"] if rng.random() < 1 / 3 else [])
            + (["rare"] if rng.random() < 1 / 1000 else []),
            "metadata": {"author": "Ada", "documentation_url": "https://example.com/docs"},
            "average_rating": round(rng.uniform(1, 5), 2) if rated else None,
            "rating_count": rng.randrange(1, 500) if rated else 0,
            "remote_updated_at": DAWN + timedelta(seconds=rng.randrange(10**7)),
        }
        yield Skill(**fields, category_id=rng.choice(category_ids), remote_created_at=DAWN, synced_at=DAWN)


if __name__ == "__main__":
    main()
