# ruff: noqa: T201 - a script for a terminal
"""(a) Measure how many messages per second are applied when they are sent at full speed. See bench/README.md."""

from pathlib import Path
from typing import Any

from bench.options import parser, run
from bench.stage import Databases, Program, Stage, cpu_seconds, spread
from bench.workload import write_messages

KINDS = ("receive", "update_or_create", "prototype", "mirror")
# A yardstick that takes a message at a time needs no 20,000 of them to be known.
SLOW = 0.05


def measure(databases: Databases, *, messages: int, over: int, repeat: int, profile: str = "") -> dict[str, Any]:
    """Return messages per second and per CPU second, by kind."""
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeat):
        for kind in KINDS if not profile else ("mirror",):
            count = max(int(messages * SLOW), 200) if kind == "update_or_create" else messages
            with databases.stage() as stage:
                file = stage.folder / "messages.jsonl"
                last = write_messages(file, count, over)
                seconds, used = (
                    mirror(stage, file, count, last, profile)
                    if kind == "mirror"
                    else yardstick(stage, kind, file, count, last)
                )
                rates[kind].append(count / seconds)
                cpu[kind].append(count / used)
                print(
                    f"  {databases.vendor} {kind}: {count / seconds:,.0f}/s, {count / used:,.0f} a CPU second",
                    flush=True,
                )
    made = [kind for kind in KINDS if rates[kind]]
    return {
        "messages": messages, "over": over,
        "a_second": {kind: spread(rates[kind]) for kind in made},
        "a_cpu_second": {kind: spread(cpu[kind]) for kind in made},
        "ratio": {
            kind: spread([ours / theirs for ours, theirs in zip(rates["mirror"], rates[kind], strict=True)])
            for kind in made if kind != "mirror"
        },
    }  # fmt: skip


def yardstick(stage: Stage, kind: str, file: Path, count: int, last: dict[str, str]) -> tuple[float, float]:
    market, where = stage.market(messages=file)
    program = stage.start("bench.yardsticks", kind, where["ws_url"], count)
    program.hear()
    before = cpu_seconds(program.pid)
    sent = market.ask(do="send", count=count, rate=0)
    did = program.hear()
    if kind != "receive" and stage.versions("bench_plain_skill") != last:
        raise AssertionError(f"{kind} lost something")
    return (did["commits"][-1][0] - sent["began"]) / 1e9, did["cpu"] - before


def mirror(stage: Stage, file: Path, count: int, last: dict[str, str], profile: str = "") -> tuple[float, float]:
    market, where = stage.market(messages=file)
    daemon = stage.daemon(where, *(["--profile", profile] if profile else []))
    seconds, used = played(stage, market, daemon, count, last)
    stage.commits(daemon)
    return seconds, used


def played(stage: Stage, market: Program, daemon: Program, count: int, last: dict[str, str]) -> tuple[float, float]:
    """Return seconds and CPU seconds from the first message sent to the last one committed; none may be lost."""
    stage.until(lambda: stage.state() == "live", "it is live", daemon)
    before = cpu_seconds(daemon.pid)
    sent = market.ask(do="send", count=count, rate=0)
    newest = max(last, key=lambda skill_id: int(last[skill_id].split(".")[1]))
    query = f"SELECT version FROM marketplace_sync_skill WHERE skill_id = '{newest}'"
    stage.until(lambda: stage.rows(query) == [(last[newest],)], "the last message is in", daemon)
    used = cpu_seconds(daemon.pid) - before
    if stage.versions("marketplace_sync_skill") != last:
        raise AssertionError("the mirror lost something")
    ended = [at for at, _ in stage.commits(daemon)][-1]
    return (ended - sent["began"]) / 1e9, used


if __name__ == "__main__":
    _options = parser(__doc__)
    _options.add_argument("--messages", type=int, default=20_000)
    _options.add_argument("--over", type=int, default=5_000, help="skills that the messages are about")
    _options.add_argument("--profile", default="", help="profile the daemon into FILE.*, and nothing else")
    run(_options, "sustained", measure, "messages", "over", "repeat", "profile")
