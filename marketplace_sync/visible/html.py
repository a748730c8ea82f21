"""The same for pages: escaped HTML in which each mark stands out from a text that merely looks like one."""

import unicodedata
from typing import Any

from django.utils.html import conditional_escape, escape, format_html
from django.utils.safestring import SafeString

from marketplace_sync.visible import has_unseen, mark, pieces


def visible_html(value: Any) -> SafeString:
    """Return `value` as HTML, escaped once. What is HTML already stays as it is."""
    if isinstance(value, SafeString) or hasattr(value, "__html__"):
        return conditional_escape(value)
    return SafeString("".join(_unseen(piece) if unseen else escape(piece) for piece, unseen in pieces(str(value))))


def hidden_badge(*texts: Any) -> SafeString:
    """Return the badge for texts of which one hides a character; nothing where none does."""
    if not any(has_unseen(text) for text in texts if isinstance(text, str) and not isinstance(text, SafeString)):
        return SafeString("")
    return SafeString(
        '<span class="mm-badge mm-bad" title="This text has characters that are not seen. Each is marked.">'
        "hidden text</span>"
    )


def _unseen(char: str) -> SafeString:
    name = unicodedata.name(char, "control or private character")
    return format_html('<span class="mm-unseen" title="{}">{}</span>', name.lower(), mark(char))
