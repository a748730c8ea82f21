"""Logs: one event a line on stderr, for people (`key=value`) or for machines (JSON), never with a secret.

`structlog.get_logger(__name__).info("stream_open", attempts=2)` is how this project logs; what other
libraries log through `logging` comes out in the same form.
"""

import json
import logging
import logging.config
import re
import traceback
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.types import EventDict

from marketplace_sync.redaction import MASK, Secret, forget, install, protect, redact, redact_value

__all__ = [
    "LEVELS",
    "MASK",
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
# They tell of each request or frame, which is worth reading only when everything is.
_TALKATIVE = ("asyncio", "httpcore2", "httpx2", "websockets")
# Loggers for which Django and uvicorn set handlers of their own; ours is the only one.
_WITH_HANDLERS = ("django", "django.server", "uvicorn", "uvicorn.access", "uvicorn.error")

_PLAIN = re.compile(r"[\w./:@+%*,()\[\]-]+")
# What a terminal or a log reader would obey instead of showing: controls, line ends, direction marks.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def logging_config(*, level: str = "INFO", as_json: bool = False) -> dict[str, Any]:
    """The value of Django's `LOGGING`. Use it with `LOGGING_CONFIG = "marketplace_sync.logs.configure"`."""
    quiet = "NOTSET" if level == "DEBUG" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "marketplace_sync.logs.line_formatter", "as_json": as_json}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            **{name: {"level": quiet} for name in _TALKATIVE},
            **{name: {"handlers": [], "level": "NOTSET", "propagate": True} for name in _WITH_HANDLERS},
        },
    }


def configure(config: dict[str, Any]) -> None:
    """Set `logging` up by `config`, structlog to go through it, and redaction for both."""
    install()
    logging.config.dictConfig(config)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def line_formatter(*, as_json: bool) -> logging.Formatter:
    """The formatter of every record, structlog's and others'."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_foreign_traceback],
        processors=[_json_line if as_json else _console_line],
    )


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
    # Masked before JSON escapes it, and once more as it will be read.
    return redact(json.dumps(redact_value({**event, **line}), default=str, skipkeys=True))


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
    # A traceback keeps its lines, indented: no text from outside can look like an event of its own.
    return redact("\n    ".join([" ".join(words), *(_safe(line) for block in blocks for line in block.splitlines())]))


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _word(value: Any) -> str:
    text = str(round(value, 3) if isinstance(value, float) else value)
    return text if _PLAIN.fullmatch(text) else f'"{_safe(text.replace(chr(34), chr(39)))}"'


def _safe(text: str) -> str:
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
