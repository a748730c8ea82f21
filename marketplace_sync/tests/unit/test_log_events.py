"""`docs/log-events.md` names every event that the source can log, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

APP = Path(__file__).resolve().parents[2]
PAGE = APP.parent / "docs" / "log-events.md"
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error",
          "critical": "critical", "log": "of the event"}  # fmt: skip


class Logged(NamedTuple):
    """One event: its name, its level, the logger within the app, its fields."""

    event: str
    level: str
    logger: str
    fields: frozenset[str]


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression can be: `"a"`, or `"a" if x else "b"`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def logged_by(source: str, logger: str) -> Iterator[Logged]:
    """Yield the events that a module logs through structlog."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        to = ast.unparse(node.func.value)
        if to != "log" and not to.startswith("structlog.get_logger("):
            continue
        name = node.args[1 if node.func.attr == "log" else 0]
        fields = frozenset(keyword.arg or "**" for keyword in node.keywords)
        found = list(texts(name))
        assert found, f"{logger}:{node.lineno}: the name of an event is a text, so that it can be looked for"
        for event in found:
            yield Logged(event, LEVELS[node.func.attr], logger, fields)


def in_the_source() -> set[Logged]:
    found: set[Logged] = set()
    for path in APP.rglob("*.py"):
        parts = path.relative_to(APP).with_suffix("").parts
        if parts[0] != "tests":
            found |= set(logged_by(path.read_text(), ".".join(part for part in parts if part != "__init__")))
    for path in (APP.parent / "atomproject").rglob("*.py"):
        found |= set(logged_by(path.read_text(), f"atomproject.{path.stem}"))
    return found


def on_the_page() -> list[Logged]:
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| ([\w.]+) \| [^|]+ \|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    return [
        Logged(name, level, logger, frozenset(re.findall(r"`(\w+)`", fields))) for name, level, logger, fields in rows
    ]


def test_the_page_lists_the_events_of_the_source() -> None:
    listed, logged = on_the_page(), in_the_source()
    assert logged - set(listed) == set(), "logged, and not on docs/log-events.md as it is"
    assert set(listed) - logged == set(), "on docs/log-events.md, and not logged so"
    assert len(listed) == len(set(listed))
    assert len(listed) > 20


def test_an_event_has_one_place() -> None:
    names = [row.event for row in on_the_page()]
    assert sorted(names) == sorted(set(names))


def test_a_planted_event_is_found() -> None:
    source = 'log.warning("a" if x else "b", why=1)\nstructlog.get_logger(__name__).info("c")\nother.info("d")'
    assert set(logged_by(source, "x")) == {
        Logged("a", "warning", "x", frozenset({"why"})),
        Logged("b", "warning", "x", frozenset({"why"})),
        Logged("c", "info", "x", frozenset()),
    }
