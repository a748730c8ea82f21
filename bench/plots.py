"""Draw bar charts as SVG, in forty lines instead of a library."""

from collections.abc import Sequence
from html import escape
from typing import Any

from bench.report import found_at

WIDTH, BAR, GAP, LABEL = 760, 22, 8, 250
COLOURS = {"mirror": "#0b7285", "prototype": "#adb5bd", "receive": "#dee2e6", "update_or_create": "#f08c00"}
Bar = tuple[str, float, float, float, str]  # label, median, least, most, colour


def draw(result: dict[str, Any]) -> str:
    """Return a picture of the result as SVG: rates, latencies, first syncs."""
    parts: list[str] = []
    height = 10
    for vendor, name in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL")):
        if vendor not in result:
            continue
        found = result[vendor]
        for title, figures, form in (
            (f"{name}: messages applied per second", found_at(found, ("sustained", "a_second")), ",.0f"),
            (f"{name}: p50 from sending to commit, ms", found_at(found, ("latency", "p50_ms")), ".2f"),
            (f"{name}: seconds of a first sync", first_syncs(found.get("full_syncs", {})), ".2f"),
        ):
            if not figures:
                continue
            bars = [
                (label, figure["median"], figure["least"], figure["most"], COLOURS[label.split()[0]])
                for label, figure in figures.items()
            ]
            drawn, taken = chart(title, bars, form, height)
            parts += drawn
            height += taken
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def first_syncs(syncs: dict[str, Any]) -> dict[str, Any]:
    sizes = [size for size in syncs if size.isdecimal()]
    return {
        f"{kind} {int(size):,} skills": syncs[size][figure]
        for size in sizes
        for kind, figure in (("prototype", "plain_seconds"), ("mirror", "first_seconds"))
    }


def chart(title: str, bars: Sequence[Bar], form: str, top: int) -> tuple[list[str], int]:
    """Return the elements of one chart and its height. A line from the least to the most crosses each bar."""
    scale = (WIDTH - LABEL - 110) / max(most for _, _, _, most, _ in bars)
    drawn = [f'<text x="10" y="{top + 16}" font-weight="bold">{escape(title)}</text>']
    y = top + 26
    for label, median, least, most, colour in bars:
        middle = y + BAR / 2
        drawn += [
            f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{median * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{LABEL + least * scale:.1f}" x2="{LABEL + most * scale:.1f}" y1="{middle}" y2="{middle}" '
            'stroke="#212529"/>',
            f'<text x="{LABEL + most * scale + 8:.1f}" y="{middle + 4}">{median:{form}}</text>',
        ]
        y += BAR + GAP
    return drawn, y - top + 14
