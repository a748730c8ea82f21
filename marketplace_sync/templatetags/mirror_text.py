"""Template filters for text from outside: `{% load mirror_text %}`."""

from typing import Any

from django import template
from django.utils.safestring import SafeString

from marketplace_sync.visible import visible
from marketplace_sync.visible.html import hidden_badge, visible_html

register = template.Library()


@register.filter(name="visible")
def visible_filter(value: Any) -> SafeString:
    """Return escaped HTML in which each invisible character is marked."""
    return visible_html(value)


@register.filter
def visible_text(value: Any) -> str:
    """Return the text with marks but without markup, for attributes and titles. The template escapes it."""
    return visible(str(value))


@register.filter
def hidden_text(value: Any) -> SafeString:
    """Return the badge "hidden text" if the value has an invisible character."""
    return hidden_badge(value)
