"""Template filters for texts of somebody else: `{% load mirror_text %}`."""

from typing import Any

from django import template
from django.utils.safestring import SafeString

from marketplace_sync.visible import visible
from marketplace_sync.visible.html import hidden_badge, visible_html

register = template.Library()


@register.filter(name="visible")
def visible_filter(value: Any) -> SafeString:
    """Mark each character that is not seen; the result is escaped HTML."""
    return visible_html(value)


@register.filter
def visible_text(value: Any) -> str:
    """The same without markup, for attributes and titles. The template escapes it."""
    return visible(str(value))


@register.filter
def hidden_text(value: Any) -> SafeString:
    """The badge "hidden text" where the value has a character that is not seen."""
    return hidden_badge(value)
