"""Each package imports only what the table here allows, and the table has no cycle (docs/design.md, Packages)."""

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
# All modules that the pure packages need from outside: none of them does I/O, reads a clock or is random.
PURE = names(
    "__future__ bisect collections dataclasses datetime decimal enum fractions functools hashlib heapq itertools "
    "json math msgspec operator re string types typing unicodedata"
)


@dataclass(frozen=True)
class Package:
    """The allowed imports: packages of this app by name; from outside, all but `never`, or only `only`."""

    packages: frozenset[str]
    never: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    clock: bool = True  # may read a clock


def package(packages: str, never: frozenset[str] = frozenset(), **more: object) -> Package:
    return Package(names(packages), never, **more)  # type: ignore[arg-type]


# A module beside the packages counts as a package of its own.
PACKAGES: dict[str, Package] = {
    "protocol": package("", only=PURE, clock=False),
    "engine": package("protocol", only=PURE, clock=False),
    "redaction": package("", DJANGO | SOCKETS),
    "logs": package("redaction visible", DJANGO | SOCKETS),
    "variants": package("", DJANGO | SOCKETS),
    "setting": package("", DJANGO | SOCKETS),
    "setting_values": package("redaction setting variants", DJANGO | SOCKETS),
    "conf_rules": package("setting setting_values", DJANGO | SOCKETS),
    "conf": package("redaction logs conf_rules setting setting_values", DJANGO | SOCKETS),
    "postgres": package("", SOCKETS),
    "client_address": package("conf setting setting_values", SOCKETS),
    "checks": package("conf setting upstream", SOCKETS),
    "visible": package("", SOCKETS),
    "unavailable": package("", SOCKETS),
    "web": package("unavailable visible postgres", SOCKETS),
    "templatetags": package("visible", SOCKETS),
    "project_checks": package("governance models", SOCKETS),
    "database_checks": package("postgres", SOCKETS),
    "apps": package("checks database_checks project_checks redaction conf logs", SOCKETS),
    "models": package("protocol engine visible", SOCKETS),
    "migrations": package("models", SOCKETS),
    "mirror": package("protocol engine models logs postgres", SOCKETS),
    "upstream": package("protocol engine conf logs setting setting_values variants", DJANGO),
    # The daemon asks governance whether the author of a command still has the right to it.
    "daemon": package("protocol engine models mirror upstream governance signals conf logs"),
    "simulator": package("protocol", DJANGO),
    "signals": package("", SOCKETS | names("rest_framework channels")),
    "governance": package("engine models mirror signals conf logs", SOCKETS | {"rest_framework", "channels"}),
    "live": package("protocol engine models mirror signals governance client_address conf logs", SOCKETS - {"asyncio"}),
    "api": package(
        "protocol engine models mirror signals governance client_address live conf logs unavailable",
        SOCKETS - {"asyncio", "http"},
    ),
    "admin": package(
        "protocol engine models mirror signals governance monitoring client_address conf logs visible", SOCKETS
    ),
    "parent_watch": package("", DJANGO | SOCKETS),
    "monitoring": package("models mirror live api conf", SOCKETS - {"asyncio", "http"}),
    # It starts the simulator, the daemon and the web server as programs.
    "demo": package("protocol models mirror governance daemon conf logs"),
    "management": package(
        "protocol engine models mirror upstream daemon simulator demo governance live monitoring conf logs visible "
        "postgres database_checks project_checks"
    ),
}
# Modules of this app that a single module may not import, in addition to the table.
WALLS: dict[str, frozenset[str]] = {
    # It decides what is removed; only the sync run writes.
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
    """Return the forbidden imports and clock reads of the module with this dotted name within the app."""
    own = name.split(".")[0]
    if own not in PACKAGES:
        return [f"{name}: the table has no such package. Add a row with what it may import"]
    allowed = PACKAGES[own]
    tree = ast.parse(source)
    found = []
    for line, module in imported(tree):
        top, _, rest = module.partition(".")
        if module.startswith("."):
            found.append(f"{name}:{line}: relative import")
        elif top == APP:
            other = rest.split(".")[0]
            if other and other != "__version__" and other != own and other not in allowed.packages:
                found.append(f"{name}:{line}: {own} may not import {other}")
            elif rest in WALLS.get(name, ()):
                found.append(f"{name}:{line}: {name} may not import {rest}")
        elif top in allowed.never or (allowed.only is not None and top not in allowed.only):
            found.append(f"{name}:{line}: {own} may not import {top}")
    if not allowed.clock:
        found += [
            f"{name}:{node.lineno}: {own} may not read a clock"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CLOCKS
        ]
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        if parts[0] != "tests" and parts != ("__init__",):
            yield ".".join(part for part in parts if part != "__init__"), path


def test_every_import_is_in_the_table() -> None:
    found = [fault for name, path in modules() for fault in violations(name, path.read_text())]
    assert found == []


def test_the_table_has_no_cycle() -> None:
    left = {name: set(allowed.packages) for name, allowed in PACKAGES.items()}
    while free := {name for name, packages in left.items() if not packages & left.keys()}:
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


def test_all_modules_are_checked() -> None:
    checked = {name for name, _ in modules()}
    assert {"protocol.events", "engine", "models", "conf"} <= checked
    assert WALLS.keys() | {wall for walls in WALLS.values() for wall in walls} <= checked


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("protocol.x", "import time", "protocol may not import time"),
        ("protocol.x", "from django.db import models", "protocol may not import django"),
        ("protocol.x", "import asyncio", "protocol may not import asyncio"),
        ("protocol.x", "from marketplace_sync.engine.plan import P", "protocol may not import engine"),
        ("protocol", "from marketplace_sync import conf", "protocol may not import conf"),
        ("protocol.x", "from datetime import datetime\ndatetime.now()", "protocol may not read a clock"),
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
        ("helpers", "", "no such package"),
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
def test_allowed_imports_are_not_reported(name: str, source: str) -> None:
    assert violations(name, source) == []
