"""Log one event per line on stderr, for people (`key=value`) or for machines (JSON), never with a secret.

This project logs with `structlog.get_logger(__name__).info("sync_failed", reason=text)`. What other libraries log
through `logging` gets the same form. A task binds its ids (`structlog.contextvars`), and they appear in each of its
lines. A flood of one event becomes a count.
"""

import atexit
import json
import logging
import logging.config
import re
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.types import EventDict

from marketplace_sync.redaction import MASK, Secret, forget, install, protect, redact, redact_value
from marketplace_sync.visible import pieces

__all__ = [
    "LEVELS",
    "MASK",
    "FloodFilter",
    "RefusedRequestFilter",
    "Secret",
    "configure",
    "forget",
    "install",
    "line_formatter",
    "logging_config",
    "protect",
    "redact",
]

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# They log each request or frame, which is shown at DEBUG only.
_VERBOSE = ("asyncio", "httpcore2", "httpx2", "websockets")
# Clients of ours decide how many errors these log.
_DRIVEN_BY_CLIENTS = ("django.security",)
# Here Django logs a request that it refuses, with a traceback that shows nothing but Django.
_REFUSED_REQUESTS = ("django.security", "django.request")
_MAX_REFUSED_CHARS = 300
# One line per request is what a person wants who turns them on.
_NEVER_LIMITED = ("uvicorn.access", "django.server")
# Django and uvicorn give these loggers handlers of their own, which are removed in favour of ours.
_WITH_HANDLERS = ("django", "django.server", "uvicorn", "uvicorn.access", "uvicorn.error")

_PLAIN = re.compile(r"[\w./:@+%*,()\[\]-]+")
# Line ends and other controls, which a terminal or a log reader would obey. `visible` finds invisible characters.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def logging_config(*, level: str = "INFO", as_json: bool = False) -> dict[str, Any]:
    """Return the value of Django's `LOGGING`. Use it with `LOGGING_CONFIG = "marketplace_sync.logs.configure"`."""
    quiet = "NOTSET" if level == "DEBUG" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "marketplace_sync.logs.line_formatter", "as_json": as_json}},
        "filters": {
            "refused": {"()": "marketplace_sync.logs.RefusedRequestFilter"},
            "flood": {"()": "marketplace_sync.logs.FloodFilter"},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["refused", "flood"]},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": quiet} for name in _VERBOSE},
            **{name: {"handlers": [], "level": "NOTSET", "propagate": True} for name in _WITH_HANDLERS},
        },
    }


def configure(config: dict[str, Any]) -> None:
    """Configure `logging` by `config`, structlog to log through it, and redaction for both."""
    install()
    access = logging.getLogger("uvicorn.access")
    unwanted = not access.propagate and not access.handlers  # as `uvicorn --no-access-log` leaves it
    logging.config.dictConfig(config)
    access.propagate = not unwanted
    atexit.register(_log_remaining_counts)
    _configure_structlog(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)


def use_logging() -> None:
    """Let structlog log through `logging`, as `key='value'` texts, in a project that has not configured it.

    By default structlog prints, past all handlers and past redaction.
    """
    if not structlog.is_configured():
        _configure_structlog(structlog.processors.KeyValueRenderer(key_order=["event"]))


def _configure_structlog(last: Any) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact_event,
            last,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def line_formatter(*, as_json: bool) -> logging.Formatter:
    """Make the formatter of all records, structlog's and others'."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, _foreign_traceback],
        processors=[_json_line if as_json else _console_line],
    )


class RefusedRequestFilter(logging.Filter):
    """Turn a refused request into one WARNING line. Our own errors keep their level and traceback.

    Any client can send a wrong `Host`, and Django logs each at ERROR with some 40 lines.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security"):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        if record.name.startswith(_REFUSED_REQUESTS) and record.levelno <= logging.WARNING:
            record.exc_info = record.exc_text = None
            # It quotes the request, whose host or path may have thousands of characters.
            record.msg, record.args = record.getMessage()[:_MAX_REFUSED_CHARS], ()
        return True


@dataclass(slots=True, eq=False)
class _Window:
    """One minute of one event. `seen` counts its lines, logged or not."""

    ends: float
    seen: int = 0


class FloodFilter(logging.Filter):
    """Log at most `lines` lines of one event in `seconds`. The others are counted, and the count is logged afterwards.

    For other libraries, all lines of one logger and level are one event. Errors are always logged, and so is DEBUG,
    which somebody turns on to see everything.
    """

    def __init__(self, lines: int = 60, seconds: float = 60.0) -> None:
        super().__init__()
        self._lines = lines
        self._seconds = seconds
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, int, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        event = str(record.msg.get("event", "")) if isinstance(record.msg, dict) else ""
        if record.levelno <= logging.DEBUG or record.name in _NEVER_LIMITED or event == "suppressed":
            return True
        if record.levelno >= logging.ERROR and not record.name.startswith(_DRIVEN_BY_CLIENTS):
            return True
        key, now = (record.name, record.levelno, event), time.monotonic()
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends:
                window = self._windows[key] = _Window(now + self._seconds)
            window.seen += 1
            if window.seen == self._lines + 1:
                # By a timer: after a flood no further line may come.
                timer = threading.Timer(self._seconds, self._log_count, (key, window))
                timer.daemon = True
                timer.start()
            return window.seen <= self._lines

    def log_counts(self) -> None:
        """Log the counts of windows that have not ended."""
        for key, window in list(self._windows.items()):
            self._log_count(key, window)

    def _log_count(self, key: tuple[str, int, str], window: _Window) -> None:
        with self._lock:
            if self._windows.get(key) is window:
                del self._windows[key]
            count, window.seen = max(window.seen - self._lines, 0), 0
        name, level, event = key
        if count:
            structlog.get_logger(__name__).log(level, "suppressed", source=name, of=event, count=count)


def _log_remaining_counts() -> None:
    """Log the counts of floods that are under way when the process ends."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not handler.stream.closed:
            for flood in handler.filters:
                if isinstance(flood, FloodFilter):
                    flood.log_counts()


def _redact_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    hidden: EventDict = redact_value(dict(event))
    return hidden


def _foreign_traceback(_logger: Any, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if event["_record"].exc_text:
        event["exception"] = event["_record"].exc_text
    elif info and info[0] is not None:
        event["exception"] = "".join(traceback.format_exception(*info)).rstrip("\n")
    if "stack_info" in event:
        event["stack"] = event.pop("stack_info")
    return event


def _json_line(_logger: Any, _method: str, event: EventDict) -> str:
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    line = {
        "time": _time(record).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": str(event.pop("event", "")),
    }
    # Masked before JSON escapes it, and again as it will be read.
    return redact(json.dumps(redact_value({**line, **event, **line}), default=str, skipkeys=True))


def _console_line(_logger: Any, _method: str, event: EventDict) -> str:
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    blocks = [event.pop(name) for name in ("exception", "stack") if event.get(name)]
    words = [
        f"{_time(record):%Y-%m-%d %H:%M:%S}.{int(record.msecs):03d}Z",
        f"{record.levelname.lower():<8}",
        record.name.removeprefix("marketplace_sync.") + ":",
        _safe(str(event.pop("event", ""))),
        *(f"{key}={_word(value)}" for key, value in event.items()),
    ]
    # A traceback keeps its lines, indented: no text from outside can look like a separate event.
    return redact("\n    ".join([" ".join(words), *(_safe(line) for block in blocks for line in block.splitlines())]))


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _word(value: Any) -> str:
    text = str(round(value, 3) if isinstance(value, float) else value)
    return text if _PLAIN.fullmatch(text) else f'"{_safe(text.replace(chr(34), chr(39)))}"'


def _safe(text: str) -> str:
    shown = (_escaped(piece) if unseen else piece for piece, unseen in pieces(text))
    return _CONTROL.sub(lambda found: _escaped(found[0]), "".join(shown))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
