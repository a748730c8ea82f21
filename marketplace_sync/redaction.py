"""Law 14: the token is never seen.

`protect` makes a text a secret: it is replaced in every log record of the process when the record is made. So it is
hidden from each handler and formatter, also from ones added later, and in the records of other libraries at DEBUG.
Other secrets are recognised by their shape: `?token=...`, `Bearer ...`, the keys of agents, and the password of a login
in a URL are masked in any text. Not covered: a handler that prints attributes given by `extra=`, which `logging` adds
after the record is made; our own formatter prints none.
"""

import json
import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
# A shorter text occurs in ordinary words; masking it would make logs unreadable and hide nothing.
MIN_SECRET_CHARS = 4
# A text that was cut may end with the beginning of a secret. So many characters of one are masked, up to the next
# delimiter; a secret that is not much longer is masked only as a whole. An id that begins like the token is hidden in
# logs too. That is better than showing a part of the token: nothing masked is ever read back. The mirror, the feed and
# the pages keep ids whole, and a dead letter whose bytes were masked is replayed by a fetch.
_BEGINNING_CHARS = 12
# A structure nested deeper is printed as its masked text.
_MAX_DEPTH = 8

_SHAPES = re.compile(
    r"(?P<query>[?&](?:access_)?token=)[^&\s\"'#<>]+|(?P<scheme>\bBearer\s+)[\w.~+/=*-]{8,}"
    r"|(?P<key>\bmirror_)[0-9a-f]{16,}|(?P<login>\b[a-z][a-z0-9+.-]{0,20}://[^\s:@/\"'<>]{0,100}:)[^\s@/\"'<>]+(?=@)",
    re.IGNORECASE,
)

_lock = threading.Lock()
# By secret: regular expressions, each with its sort key: whole secrets before beginnings, longer before shorter.
_forms: dict[str, frozenset[tuple[int, int, str]]] = {}
_pattern = re.compile(r"(?!)")  # of all secrets; matches nothing yet

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Secret:
    """A text that no `repr`, `str`, format or log shows. Falsy when empty. `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return Secret, (self._text,)


def protect(secret: str | Secret) -> None:
    """Mask this text from now on, also as URLs, JSON and Python literals write it, if it has 4 characters or more."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    if len(text) < MIN_SECRET_CHARS or text in _forms:
        return
    # An environment variable that is not UTF-8 has lone surrogates here.
    raw = text.encode("utf-8", "surrogatepass")
    written = {text, json.dumps(text)[1:-1], repr(text)[1:-1], repr(raw)[2:-1]}
    in_urls = {quote(raw), quote(raw, safe=""), quote_plus(raw)} - written
    found = set()
    # %2f and %2F are the same to every reader of URLs.
    for form, flag in (*((form, "") for form in written), *((form, "i") for form in in_urls)):
        found.add((0, -len(form), f"(?{flag}:{re.escape(form)})"))
        if len(form) >= _BEGINNING_CHARS + 4:
            beginning = re.escape(form[:_BEGINNING_CHARS])
            found.add((1, -len(form), f"(?{flag}:{beginning}[^\\s\"'<>&]*)"))
    with _lock:
        _forms[text] = frozenset(found)
        _compile()


def forget(secret: str | Secret) -> None:
    """Stop masking this text. For tokens replaced long ago: each known one makes every log line more expensive."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    with _lock:
        if _forms.pop(text, None) is not None:
            _compile()


def _compile() -> None:
    global _pattern
    forms = sorted(frozenset().union(*_forms.values()))
    _pattern = re.compile("|".join(form for *_, form in forms) or "(?!)")


def redact(text: str) -> str:
    """Return the text without secrets. Redact before you cut a text, or half a secret is left."""
    # The secrets first: the shape of `Bearer <secret>` may end in the middle of one, and leave the rest.
    return _SHAPES.sub(_masked, _pattern.sub(MASK, text))


def redact_value(value: Any, depth: int = 0) -> Any:
    """Return a structure of a log record without secrets; a part that has none stays the same object."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        hidden = redact(value)
        return value if hidden == value else hidden
    if depth < _MAX_DEPTH:
        if isinstance(value, dict):
            return {redact_value(key, depth + 1): redact_value(item, depth + 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(redact_value(item, depth + 1) for item in value)
    # Both, for a handler may print either: %s and %r.
    seen, shown = str(value), repr(value)
    if redact(seen) != seen:
        return redact(seen)
    return value if redact(shown) == shown else redact(shown)


def install() -> None:
    """Redact the log records of this process, and the tracebacks that end it or one of its threads. Idempotent."""
    factory = logging.getLogRecordFactory()
    if not getattr(factory, "redacts", False):
        logging.setLogRecordFactory(_redacting(factory))
    if sys.excepthook is not _print_fatal_error:
        _hooks["program"], sys.excepthook = sys.excepthook, _print_fatal_error
    if threading.excepthook is not _print_thread_error:
        _hooks["thread"], threading.excepthook = threading.excepthook, _print_thread_error


def _masked(found: re.Match[str]) -> str:
    return (found["query"] or found["scheme"] or found["key"] or found["login"] or "") + MASK


def _redacting(make: Any) -> Any:
    def record_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **kwargs)
        try:
            _redact_record(record)
        except Exception as error:
            # A log call never raises: an argument whose own __str__ fails is replaced.
            record.msg, record.args = f"unprintable log message ({type(error).__name__})", ()
        return record

    record_factory.redacts = True  # type: ignore[attr-defined]
    return record_factory


def _redact_record(record: logging.LogRecord) -> None:
    record.msg = redact_value(record.msg)
    if record.args:
        # Each on its own first: formatters such as uvicorn's access log read them one by one.
        record.args = redact_value(record.args)
        if isinstance(record.msg, str):
            text = _formatted(record)
            if redact(text) != text:
                record.msg, record.args = redact(text), ()
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        hidden = redact(text)
        if hidden != text:
            # Every formatter prints `exc_text` where it is set; the exception itself must not reach one.
            record.exc_text, record.exc_info = hidden, None


def _formatted(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # Arguments that do not fit their message are appended to it; otherwise each handler would print a traceback.
        record.msg, record.args = f"{record.msg} {redact_value(record.args)!r}", ()
        return redact(record.msg)


_hooks: dict[str, Any] = {}


def _print_fatal_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    if redact(text) == text:
        _hooks["program"](kind, error, trace)
    else:
        sys.stderr.write(redact(text))


def _print_thread_error(args: threading.ExceptHookArgs) -> None:
    text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    if redact(text) == text:
        _hooks["thread"](args)
    else:
        sys.stderr.write(redact(text))
