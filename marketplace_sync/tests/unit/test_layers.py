"""Imports go downwards only: each room of the design, and all that it may know."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

APP = "marketplace_sync"
FOLDER = Path(__file__).resolve().parents[2]


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SOCKETS = names(
    "socket ssl socketserver asyncio selectors http urllib3 requests httpx httpx2 httpcore2 h11 aiohttp "
    "websockets uvicorn redis"
)
DJANGO = names("django rest_framework channels channels_redis")
# All that a pure room needs of the world; whatever else has I/O, a clock or a dice in it has to be argued for here.
PURE = names(
    "__future__ bisect collections dataclasses datetime decimal enum fractions functools hashlib heapq itertools "
    "json math msgspec operator re string types typing unicodedata"
)


@dataclass(frozen=True)
class Room:
    """What may be imported: rooms of this app by name, and of the world all but `never`, or only `only`."""

    rooms: frozenset[str]
    never: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    clock: bool = True  # may ask what time it is


def room(rooms: str, never: frozenset[str] = frozenset(), **more: object) -> Room:
    return Room(names(rooms), never, **more)  # type: ignore[arg-type]


# A module that stands beside the rooms is a room of its own.
ROOMS: dict[str, Room] = {
    "protocol": room("", only=PURE, clock=False),
    "engine": room("protocol", only=PURE, clock=False),
    "redaction": room("", DJANGO | SOCKETS),
    "logs": room("redaction visible", DJANGO | SOCKETS),
    "variants": room("", DJANGO | SOCKETS),
    "setting": room("", DJANGO | SOCKETS),
    "setting_values": room("redaction setting variants", DJANGO | SOCKETS),
    "conf_rules": room("setting setting_values", DJANGO | SOCKETS),
    "conf": room("redaction logs conf_rules setting setting_values", DJANGO | SOCKETS),
    "postgres": room("", SOCKETS),
    "client_address": room("conf setting setting_values", SOCKETS),
    "checks": room("conf setting upstream", SOCKETS),
    "visible": room("", SOCKETS),
    "unavailable": room("", SOCKETS),
    "web": room("unavailable visible postgres", SOCKETS),
    "templatetags": room("visible", SOCKETS),
    "project_checks": room("governance models", SOCKETS),
    "database_checks": room("postgres", SOCKETS),
    "apps": room("checks database_checks project_checks redaction conf logs", SOCKETS),
    "models": room("protocol engine visible", SOCKETS),
    "migrations": room("models", SOCKETS),
    "mirror": room("protocol engine models logs postgres", SOCKETS),
    "upstream": room("protocol engine conf logs setting setting_values variants", DJANGO),
    # The daemon asks governance whether the author of a command still has the right to it.
    "daemon": room("protocol engine models mirror upstream governance signals conf logs"),
    "simulator": room("protocol", DJANGO),
    "signals": room("", SOCKETS | names("rest_framework channels")),
    "governance": room("engine models mirror signals conf logs", SOCKETS | {"rest_framework", "channels"}),
    "live": room("protocol engine models mirror signals governance client_address conf logs", SOCKETS - {"asyncio"}),
    "api": room(
        "protocol engine models mirror signals governance client_address live conf logs unavailable",
        SOCKETS - {"asyncio", "http"},
    ),
    "admin": room(
        "protocol engine models mirror signals governance monitoring client_address conf logs visible", SOCKETS
    ),
    "parent_watch": room("", DJANGO | SOCKETS),
    "monitoring": room("models mirror live api conf", SOCKETS - {"asyncio", "http"}),
    # It starts the simulator, the daemon and the web server as programs.
    "demo": room("protocol models mirror governance daemon conf logs"),
    "management": room(
        "protocol engine models mirror upstream daemon simulator demo governance live monitoring conf logs visible "
        "postgres database_checks project_checks"
    ),
}
# Walls within a room: what of this app a module may not import besides.
WALLS: dict[str, frozenset[str]] = {
    # It decides what is gone; the sync run alone writes, in its own name, and keeps the record.
    "daemon.absence": names(
        "daemon.full_sync daemon.session daemon.sync_writes daemon.write_queue daemon.writer "
        "mirror.arrived mirror.lease mirror.runs models"
    ),
}
_CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each import of a module, nested ones too, as line and dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            elif node.module == APP:
                for name in node.names:
                    yield node.lineno, f"{APP}.{name.name}"
            else:
                yield node.lineno, node.module or ""


def violations(name: str, source: str) -> list[str]:
    """Return what the module of this dotted name, within the app, imports or asks and may not."""
    own = name.split(".")[0]
    if own not in ROOMS:
        return [f"{name}: the table has no such room. Add a row with what it may import"]
    allowed = ROOMS[own]
    tree = ast.parse(source)
    found = []
    for line, module in imported(tree):
        top, _, rest = module.partition(".")
        if module.startswith("."):
            found.append(f"{name}:{line}: relative import")
        elif top == APP:
            other = rest.split(".")[0]
            if other and other != "__version__" and other != own and other not in allowed.rooms:
                found.append(f"{name}:{line}: {own} may not import {other}")
            elif rest in WALLS.get(name, ()):
                found.append(f"{name}:{line}: {name} may not import {rest}")
        elif top in allowed.never or (allowed.only is not None and top not in allowed.only):
            found.append(f"{name}:{line}: {own} may not import {top}")
    if not allowed.clock:
        found += [
            f"{name}:{node.lineno}: {own} may not ask the clock"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CLOCKS
        ]
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        if parts[0] != "tests" and parts != ("__init__",):
            yield ".".join(part for part in parts if part != "__init__"), path


def test_every_import_goes_downwards() -> None:
    found = [fault for name, path in modules() for fault in violations(name, path.read_text())]
    assert found == []


def test_the_table_itself_has_no_circle() -> None:
    left = {name: set(allowed.rooms) for name, allowed in ROOMS.items()}
    while free := {name for name, rooms in left.items() if not rooms & left.keys()}:
        for name in free:
            del left[name]
    assert left == {}


def test_only_its_command_imports_the_simulator() -> None:
    """A wheel may leave the simulator out; tests/process/test_without_simulator.py shows what is missing then."""
    importers = {
        name
        for name, path in modules()
        for _, module in imported(ast.parse(path.read_text()))
        if f"{module}.".startswith(f"{APP}.simulator.") and not name.startswith("simulator")
    }
    assert importers == {"management.commands.runsimulator"}


def test_all_modules_are_looked_at() -> None:
    looked_at = {name for name, _ in modules()}
    assert {"protocol.events", "engine", "models", "conf"} <= looked_at
    assert WALLS.keys() | {wall for walls in WALLS.values() for wall in walls} <= looked_at


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("protocol.x", "import time", "protocol may not import time"),
        ("protocol.x", "from django.db import models", "protocol may not import django"),
        ("protocol.x", "import asyncio", "protocol may not import asyncio"),
        ("protocol.x", "from marketplace_sync.engine.plan import P", "protocol may not import engine"),
        ("protocol", "from marketplace_sync import conf", "protocol may not import conf"),
        ("protocol.x", "from datetime import datetime\ndatetime.now()", "protocol may not ask the clock"),
        ("engine.x", "def f():\n    import random", "engine may not import random"),
        ("engine.x", "import socket as s", "engine may not import socket"),
        (
            "engine.x",
            "if TYPE_CHECKING:\n    from marketplace_sync.models import Skill",
            "engine may not import models",
        ),
        ("engine.x", "from ..models import Skill", "relative import"),
        ("models.x", "import marketplace_sync.mirror.apply", "models may not import mirror"),
        ("mirror.x", "import httpx2", "mirror may not import httpx2"),
        ("mirror.x", "from marketplace_sync.upstream import market", "mirror may not import upstream"),
        ("upstream.x", "from django.conf import settings", "upstream may not import django"),
        ("upstream.x", "from marketplace_sync.models import Skill", "upstream may not import models"),
        ("simulator.x", "from marketplace_sync.engine.rates import R", "simulator may not import engine"),
        ("simulator.x", "import django", "simulator may not import django"),
        ("daemon.x", "from marketplace_sync.api import views", "daemon may not import api"),
        (
            "daemon.absence",
            "from marketplace_sync.daemon.writer import Writer",
            "daemon.absence may not import daemon.writer",
        ),
        ("api.x", "from marketplace_sync.upstream.market import M", "api may not import upstream"),
        ("admin", "import websockets", "admin may not import websockets"),
        ("helpers", "", "no such room"),
    ],
)
def test_a_planted_violation_is_found(name: str, source: str, reason: str) -> None:
    (found,) = violations(name, source)
    assert reason in found


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("engine.x", "from marketplace_sync.protocol.events import Ping\nfrom datetime import datetime"),
        ("protocol.x", "from marketplace_sync.protocol import events"),
        ("upstream.x", "import asyncio\nfrom marketplace_sync.conf import SyncConfig"),
        ("daemon.x", "from marketplace_sync.daemon.writer import Writer"),
        ("daemon.x", "import asyncio, time\nfrom marketplace_sync.upstream.market import M"),
    ],
)
def test_what_is_allowed_is_not_complained_about(name: str, source: str) -> None:
    assert violations(name, source) == []
