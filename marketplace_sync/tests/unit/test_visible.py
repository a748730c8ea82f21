"""What nobody sees in a text is shown: on pages as marks, on terminals in ASCII; what people write stays as it is."""

import re
import unicodedata

import pytest
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.visible import for_terminal, has_unseen, visible
from marketplace_sync.visible.html import visible_html

WRITTEN = (
    "plain text", "naïve façade", "日本語 葛\U000e0100城 神\ufe00", "한국어", "עברית", "العربية",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, ZWNJ
    "\u0915\u094d\u200d\u0937 \u0928\u094d\u200d", "\u0dc1\u0dca\u200d\u0dbb", "\u0995\u09cd\u200d\u09a4",  # Indic, ZWJ
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f\u200d\U0001f525", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f469\U0001f3fd\u200d\U0001f4bb", "1\ufe0f\u20e3 #\ufe0f\u20e3", "\U0001f1e9\U0001f1ea",
    "\u00a9\ufe0f \u2194\ufe0f",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # the flag of Scotland
    "\u1820\u180b", "line one\nline two\r\n\tindented", "a\u00a0b\u3000c", "⟨U+200B⟩", "",
)  # fmt: skip
UNSEEN = tuple(
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u115f\u1160\u3164\uffa0\u2800\u17b4\u180b\u180e\u202e\u2066\u2069\u061c\u200e\u200f"
    "\u2061\u206a\ufe00\ufe0f\ufffc\ufff9\U000e0001\U000e0041\U000e0100\U000e01ef\U0001d159\U0001d173\U0001bca0\ue000\U000f0000"
    "\ud800\x00\x08\x1b\x7f\x85\x9b\u2028\u2029\r"
)


MISPLACED = (
    ("🏴\U000e0061\U000e0062\U000e007f", "🏴⟨U+E0061⟩⟨U+E0062⟩⟨U+E007F⟩"),  # a flag that carries a text
    ("👍\ufe0f\ufe0f", "👍\ufe0f⟨U+FE0F⟩"),
    ("👍\u200d", "👍⟨U+200D⟩"),
    ("می\u200c\u200c", "می\u200c⟨U+200C⟩"),
    ("a\ufe00\ufe01", "a⟨U+FE00⟩⟨U+FE01⟩"),  # bytes behind a character
    ("葛\U000e0100\U000e0101", "葛\U000e0100⟨U+E0101⟩"),
    ("   ", "⟨U+0020⟩⟨U+0020⟩⟨U+0020⟩"),
    ("\u00a0\u3000", "⟨U+00A0⟩⟨U+3000⟩"),
    ("1\ufe0f", "1⟨U+FE0F⟩"),
)
UNSEEN_HERE = tuple(text for text, _ in MISPLACED)


@pytest.mark.parametrize("text", WRITTEN, ids=ascii)
def test_honest_text_stays_unchanged(text: str) -> None:
    assert visible(text) == text
    assert not has_unseen(text)


@pytest.mark.parametrize("char", UNSEEN, ids=ascii)
def test_invisible_character_is_marked(char: str) -> None:
    assert visible(f"pay{char}pal") == f"pay⟨U+{ord(char):04X}⟩pal"
    assert has_unseen(f"pay{char}pal")


@pytest.mark.parametrize(("text", "shown"), MISPLACED, ids=ascii)
def test_joiners_and_selectors_stay_only_where_they_belong(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(min_size=1, max_size=40))
def test_no_invisible_character_is_left(text: str) -> None:
    shown = visible(text)
    # Format characters that have a glyph (Arabic number signs), and those of words and emoji, are seen.
    seen = re.compile(
        "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]|[\u200c\u200d\U000e0020-\U000e007f\n\t]|\r\n"
    )
    left = {char for char in seen.sub("", shown) if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert left == set()
    assert visible(shown) == shown


@given(st.text(max_size=40))
def test_html_is_escaped_once_and_keeps_the_text(text: str) -> None:
    html = visible_html(text)
    plain = re.sub(r'<span class="mm-unseen" title="[^"<>]*">(⟨U\+[0-9A-F]+⟩)</span>', r"\1", html)
    assert "<" not in plain
    assert visible_html(html) == html
    unescaped = plain
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'"), ("&amp;", "&")):
        unescaped = unescaped.replace(entity, char)
    assert unescaped == visible(text)


@given(st.text(max_size=60))
def test_terminal_text_is_one_line_without_controls(text: str) -> None:
    shown = for_terminal(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)
    assert len(shown.splitlines()) <= 1


def test_the_filter_marks_a_name_and_keeps_html() -> None:
    page = Template(
        "{% load mirror_text %}{{ name|visible }} {{ link|visible }} <a title='{{ name|visible_text }}'>"
        "{{ name|hidden_text }}"
    )
    shown = page.render(Context({"name": "<b>\u200b", "link": visible_html("&")}))
    assert shown == (
        '&lt;b&gt;<span class="mm-unseen" title="zero width space">⟨U+200B⟩</span> &amp; '
        "<a title='&lt;b&gt;⟨U+200B⟩'>"
        '<span class="mm-badge mm-bad" title="This text has invisible characters. Each is marked.">'
        "hidden text</span>"
    )
