"""Law 14: the token is never seen.

A secret that was told to `protect` is replaced in every log record of the process as the record is
made, so it holds for each handler and formatter, also for ones added later and for other libraries'
loggers at DEBUG. What hides it nowhere else is covered by shape: `?token=...`, `Bearer ...`, the keys
of agents and the password of a login in a URL are masked whoever's they are. Not covered: a handler
that prints attributes given by `extra=`, which `logging` adds after the record is made; our own
formatter prints none.
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
# A text shorter than this stands in ordinary words; masking it would make logs unreadable and hide nothing.
MIN_SECRET_CHARS = 4
# Whoever cut a text may have left the beginning of a secret. So much of one is masked up to the next delimiter;
# of a secret that is not much longer, nothing less than the whole is known for it. An id that happens to begin like
# the token is hidden in logs too: better that than part of a token, for nothing that is masked is ever read back. The
# mirror, the feed and the pages keep ids whole, and a dead letter whose bytes were masked is replayed by a fetch.
_BEGINNING_CHARS = 12
# A structure nested deeper is printed as its masked text.
_MAX_DEPTH = 8

_SHAPES = re.compile(
    r"(?P<query>[?&](?:access_)?token=)[^&\s\"'#<>]+|(?P<scheme>\bBearer\s+)[\w.~+/=*-]{8,}"
    r"|(?P<key>\bmirror_)[0-9a-f]{16,}|(?P<login>\b[a-z][a-z0-9+.-]{0,20}://[^\s:@/\"'<>]{0,100}:)[^\s@/\"'<>]+(?=@)",
    re.IGNORECASE,
)

_lock = threading.Lock()
# By secret: regular expressions, each with its place among all: whole secrets before beginnings, longer before shorter.
_forms: dict[str, frozenset[tuple[int, int, str]]] = {}
_pattern = re.compile(r"(?!)")  # of the secrets; nothing is one yet

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Secret:
    """A text that no `repr`, `str`, format or log shows. Falsy when empty. `reveal` gives it."""

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
    """Mask this text from now on, also as it looks in URLs, JSON, Python literals. Under 4 characters: not."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    if len(text) < MIN_SECRET_CHARS or text in _forms:
        return
    # An environment variable that is not UTF-8 arrives with lone surrogates.
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
    """Mask this text no longer. For tokens long replaced: each one that is known makes every log line dearer."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    with _lock:
        if _forms.pop(text, None) is not None:
            _compile()


def _compile() -> None:
    global _pattern
    forms = sorted(frozenset().union(*_forms.values()))
    _pattern = re.compile("|".join(form for *_, form in forms) or "(?!)")


def redact(text: str) -> str:
    """The text without protected secrets. To be done before a text is cut, or half a secret is left."""
    # The secrets first: the shape of `Bearer <secret>` may end in the middle of one, and leave the rest.
    return _SHAPES.sub(_masked, _pattern.sub(MASK, text))


def redact_value(value: Any, depth: int = 0) -> Any:
    """The same for a structure as logs hold it; what has nothing to hide stays the object it is."""
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
    # Both, for either may be what is printed: %s and %r.
    seen, shown = str(value), repr(value)
    if redact(seen) != seen:
        return redact(seen)
    return value if redact(shown) == shown else redact(shown)


def install() -> None:
    """Make it so for the process: log records, and the tracebacks that end a program or a thread. Once is enough."""
    factory = logging.getLogRecordFactory()
    if not getattr(factory, "redacts", False):
        logging.setLogRecordFactory(_redacting(factory))
    if sys.excepthook is not _say_why_it_ends:
        _hooks["program"], sys.excepthook = sys.excepthook, _say_why_it_ends
    if threading.excepthook is not _say_why_thread_ends:
        _hooks["thread"], threading.excepthook = threading.excepthook, _say_why_thread_ends


def _masked(found: re.Match[str]) -> str:
    return (found["query"] or found["scheme"] or found["key"] or found["login"] or "") + MASK


def _redacting(make: Any) -> Any:
    def record_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **kwargs)
        try:
            _redact_record(record)
        except Exception as fault:
            # A log call never raises: an argument whose own __str__ fails is told as such, not shown.
            record.msg, record.args = f"unprintable log message ({type(fault).__name__})", ()
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
        # Arguments that do not fit their message: told as they are, or each handler would print a traceback.
        record.msg, record.args = f"{record.msg} {redact_value(record.args)!r}", ()
        return redact(record.msg)


_hooks: dict[str, Any] = {}


def _say_why_it_ends(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, fault, trace))
    if redact(text) == text:
        _hooks["program"](kind, fault, trace)
    else:
        sys.stderr.write(redact(text))


def _say_why_thread_ends(args: threading.ExceptHookArgs) -> None:
    text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    if redact(text) == text:
        _hooks["thread"](args)
    else:
        sys.stderr.write(redact(text))
