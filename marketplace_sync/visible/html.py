"""Mark invisible characters in HTML, so that a mark differs from a text that looks like one."""

import unicodedata
from typing import Any

from django.utils.html import conditional_escape, escape, format_html
from django.utils.safestring import SafeString

from marketplace_sync.visible import has_unseen, mark, pieces


def visible_html(value: Any) -> SafeString:
    """Return `value` as HTML, escaped once. A value that is HTML already is returned unchanged."""
    if isinstance(value, SafeString) or hasattr(value, "__html__"):
        return conditional_escape(value)
    return SafeString("".join(_unseen(piece) if unseen else escape(piece) for piece, unseen in pieces(str(value))))


def hidden_badge(*texts: Any) -> SafeString:
    """Return a badge if one of the texts has an invisible character; "" otherwise."""
    if not any(has_unseen(text) for text in texts if isinstance(text, str) and not isinstance(text, SafeString)):
        return SafeString("")
    return SafeString(
        '<span class="mm-badge mm-bad" title="This text has invisible characters. Each is marked.">hidden text</span>'
    )


def _unseen(char: str) -> SafeString:
    name = unicodedata.name(char, "control or private character")
    return format_html('<span class="mm-unseen" title="{}">{}</span>', name.lower(), mark(char))
