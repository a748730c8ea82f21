"""Write the result as a table: medians, their spread, and their limits."""

from collections.abc import Callable, Sequence
from typing import Any

VENDORS = ("sqlite", "postgresql")
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    machine = result["machine"]
    lines = [
        f"# {result['at'][:16].replace('T', ' ')} UTC, commit {result['commit']}{', quick' if result['quick'] else ''}",
        "",
        f"{machine['cores']} cores of {machine['processor'] or 'an unnamed processor'}, {machine['memory_gib']} GiB, "
        f"{machine['system']} {machine['release']}, Python {machine['python']}, SQLite {machine['sqlite']}. Load "
        f"before {machine['load_before'][0]}, after {machine['load_after'][0]}. {result['note']}".rstrip(),
        "",
        f"Medians of {result['repeat']} runs, least and most in brackets; of 100,000 skills half as many, of feed and "
        "lists one.",
        "",
    ]
    vendors = [vendor for vendor in VENDORS if vendor in result]
    lines += [
        f"| | {' | '.join(NAMES[vendor] for vendor in vendors)} | must be |",
        f"| --- {'| --- ' * len(vendors)}| --- |",
    ]
    for what, must, form, *path in ROWS:
        figures = [found_at(result[vendor], path) for vendor in vendors]
        if any(figures):
            cells = " | ".join(shown(figure, form) for figure in figures)
            lines.append(f"| {what} | {cells} | {must} |")
    for what, must, derive in DERIVED:
        cells = " | ".join(derive(result[vendor]) for vendor in vendors)
        lines.append(f"| {what} | {cells} | {must} |")
    for vendor in vendors:
        if "lists" not in result[vendor]:
            continue
        slow = sorted(result[vendor]["lists"].items(), key=lambda item: -item[1])[:5]
        lines += ["", f"(g) API lists on {NAMES[vendor]}, the five slowest: "
                  + ", ".join(f"{name} {ms:.0f} ms" for name, ms in slow) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def found_at(found: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return the figure at this path; empty where it was not measured."""
    for step in path:
        found = found.get(step, {})
    return found


def shown(figure: dict[str, Any], form: str) -> str:
    """Return a median as text, with least and most where there were several runs."""
    if not figure:
        return ""
    if len(figure["runs"]) == 1:
        return format(figure["median"], form)
    return f"{figure['median']:{form}} ({figure['least']:{form}} to {figure['most']:{form}})"


def growth(found: dict[str, Any]) -> str:
    ten, hundred = (found_at(found, ("passes", size, "first_seconds")) for size in ("10000", "100000"))
    return f"{hundred['median'] / ten['median'] / 10:.2f}" if ten and hundred else ""


def memory_growth(found: dict[str, Any]) -> str:
    most = [found_at(found, ("passes", size, "most_memory_mib")) for size in SIZES]
    medians = [figure["median"] for figure in most if figure]
    return f"{medians[-1] - medians[0]:.0f}" if medians else ""


def missed(found: dict[str, Any]) -> str:
    return f"{sum(row['missed'] for row in found['feed'].values()):.0f}" if "feed" in found else ""


def feed_p99(found: dict[str, Any]) -> str:
    return ", ".join(f"{row['p99_ms']:.0f} ({name})" for name, row in found.get("feed", {}).items())


SIZES = ("1000", "10000", "100000")
# What it is called, what it must be, how it is written, and where in the result it is.
ROWS: tuple[tuple[str, ...], ...] = (
    ("(a) messages/s: receive and decode only", "", ",.0f", "sustained", "a_second", "receive"),
    ("(a) messages/s: update_or_create each", "", ",.0f", "sustained", "a_second", "update_or_create"),
    ("(a) messages/s: plain prototype", "", ",.0f", "sustained", "a_second", "prototype"),
    ("(a) messages/s: **the mirror**", "", ",.0f", "sustained", "a_second", "mirror"),
    ("... to update_or_create", "at least 10 · 18", ".1f", "sustained", "ratio", "update_or_create"),
    ("... to the prototype", "at least 0.5 · 0.6", ".2f", "sustained", "ratio", "prototype"),
    ("messages per CPU second: plain prototype", "", ",.0f", "sustained", "a_cpu_second", "prototype"),
    ("messages per CPU second: the mirror", "", ",.0f", "sustained", "a_cpu_second", "mirror"),
    ("(b) 100/s, p50 ms: update_or_create", "", ".2f", "latency", "p50_ms", "update_or_create at 100/s"),
    ("(b) 100/s, p50 ms: plain prototype", "", ".2f", "latency", "p50_ms", "prototype at 100/s"),
    ("(b) 100/s, p50 ms: the mirror", "at most update_or_create's", ".2f", "latency", "p50_ms", "mirror at 100/s"),
    ("(b) 100/s, p99 ms: the mirror", "", ".2f", "latency", "p99_ms", "mirror at 100/s"),
    ("(b) 1,000/s, p50 ms: plain prototype", "", ".2f", "latency", "p50_ms", "prototype at 1000/s"),
    ("(b) 1,000/s, p50 ms: the mirror", "at most 10", ".2f", "latency", "p50_ms", "mirror at 1000/s"),
    ("(b) 1,000/s, p99 ms: plain prototype", "", ".2f", "latency", "p99_ms", "prototype at 1000/s"),
    ("(b) 1,000/s, p99 ms: the mirror", "", ".2f", "latency", "p99_ms", "mirror at 1000/s"),
    ("(c) limit of 100/s on: lost", "0", ".0f", "flood", "limit on", "lost"),
    ("(c) limit on: syncs until in sync", "1", ".0f", "flood", "limit on", "syncs"),
    ("(c) limit on: seconds until in sync", "", ".1f", "flood", "limit on", "in_sync_after_seconds"),
    ("(c) limit off: lost", "0", ".0f", "flood", "limit off", "lost"),
    ("(c) limit off: heartbeats missed", "0", ".0f", "flood", "limit off", "connections_lost"),
    *(
        (f"{what.format(int(size))}", must if size in sizes else "", form, "full_syncs", size, figure)
        for size in SIZES
        for what, must, sizes, form, figure in (
            ("(d) {:,} skills: fetch and plain upsert, s", "", (), ".2f", "plain_seconds"),
            ("(d) {:,} skills: first sync, s", "", (), ".2f", "first_seconds"),
            ("... to the plain upsert", "at most 3", ("10000",), ".2f", "first_to_plain"),
            ("(d) {:,} skills: unchanged sync, skills/s", "", SIZES, ",.0f", "unchanged_per_second"),
            ("(e) {:,} skills: most memory, MiB", "at most 150", ("100000",), ".0f", "most_memory_mib"),
        )
    ),
)
DERIVED: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("(d) first sync of 100,000 to ten of 10,000", "at most 1.3", growth),
    ("(e) memory with most skills less that with 1,000, MiB", "at most 20", memory_growth),
    ("(f) feed: changes missed", "0", missed),
    ("(f) feed: p99 ms", "", feed_p99),
)
