"""Mark invisible characters in texts that people read.

A zero-width space, a filler or a tag character can make two different names look the same, and a bidirectional control
can turn `exe.gnp` into `png.exe`. A person who decides about a record has to see them, so each is replaced by a mark
such as `⟨U+200B⟩`. Emoji sequences, and the joiners of Persian, Indic and Mongolian words, stay as they are.

One regular expression finds them. `pattern()` returns it for Python and, with `javascript=True`, for browsers.
"""

import re
from collections.abc import Callable, Iterator

# Characters without a glyph, or that change how others are drawn. First and last of each range.
_UNSEEN: tuple[tuple[int, int], ...] = (
    (0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F),  # controls, except tab and line breaks
    (0xAD, 0xAD),  # soft hyphen
    (0x34F, 0x34F),  # combining grapheme joiner
    (0x61C, 0x61C), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF),  # zero width, bidi
    (0x115F, 0x1160), (0x3164, 0x3164), (0xFFA0, 0xFFA0),  # Hangul fillers
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800), (0x16FE4, 0x16FE4),  # Khmer, Mongolian, Braille, Khitan
    (0xD800, 0xDFFF), (0xE000, 0xF8FF), (0xF0000, 0x10FFFF),  # surrogates, private use
    (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF),
    *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0x10000, 0xF0000, 0x10000)),  # noncharacters
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFFF0, 0xFFFC), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D159, 0x1D159), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),  # tags, and more variation selectors
)  # fmt: skip
_EMOJI = (
    (0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x203C), (0x2049, 0x2049), (0x2122, 0x2122), (0x2139, 0x2139),
    (0x2194, 0x21AA), (0x231A, 0x23FF), (0x24C2, 0x24C2), (0x25AA, 0x27BF), (0x2934, 0x2935), (0x2B05, 0x2B55),
    (0x3030, 0x3030), (0x303D, 0x303D), (0x3297, 0x3297), (0x3299, 0x3299), (0x1F000, 0x1FAFF),
)  # fmt: skip
# Scripts whose spelling needs ZWNJ and ZWJ: Arabic to Mandaic, Devanagari to Sinhala, Tibetan, Myanmar, Khmer,
# Mongolian, Phags-pa, Arabic presentation forms, Brahmi and its descendants.
_JOINED = (
    (0x620, 0x6D3), (0x6D5, 0x6DC), (0x6DF, 0x70D), (0x710, 0x7FF), (0x840, 0x88E), (0x8A0, 0x8E1), (0x8E3, 0xDFF),
    (0xF00, 0xFFF), (0x1000, 0x109F), (0x1780, 0x17B3), (0x17B6, 0x17DD), (0x1820, 0x18AA), (0xA840, 0xA87F),
    (0xFB50, 0xFDCF), (0xFE70, 0xFEFC), (0x11000, 0x1107F), (0x11080, 0x114DF),
)  # fmt: skip
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFD))
# The three regions whose flag is a black flag with tags. Other tags would be an invisible text.
_REGIONS = ("gbeng", "gbsct", "gbwls")
# A text of white space alone is marked too, unless it is longer than any name.
_BLANK_CHARS = 255


def pattern(*, javascript: bool = False) -> str:
    """Return the expression. Group 1 matches one character to be marked; a match without it stays as it is."""
    one: Callable[[int], str] = (lambda code: f"\\u{{{code:x}}}") if javascript else (lambda code: f"\\U{code:08x}")

    def among(*tables: tuple[tuple[int, int], ...]) -> str:
        spans = [one(low) if low == high else f"{one(low)}-{one(high)}" for table in tables for low, high in table]
        return f"[{''.join(spans)}]"

    tags = "|".join("".join(one(0xE0000 + ord(char)) for char in region) for region in _REGIONS)
    emoji = f"{among(_EMOJI)}[{one(0xFE0E)}{one(0xFE0F)}]?"
    kept = (
        f"{one(0x1F3F4)}(?:{tags}){one(0xE007F)}",
        f"{emoji}(?:{one(0x200D)}?{emoji})*",
        f"[0-9#*]{one(0xFE0F)}{one(0x20E3)}",
        f"{among(((0x1820, 0x18AA),))}{among(((0x180B, 0x180D), (0x180F, 0x180F)))}",
        f"{among(_JOINED)}{among(((0x200C, 0x200D),))}",
        f"{among(_IDEOGRAPHS)}{among(((0xFE00, 0xFE02), (0xE0100, 0xE01EF)))}",
    )
    return f"{'|'.join(kept)}|({among(_UNSEEN)}|{one(0x0D)}(?!{one(0x0A)}))"


_ANY = re.compile(f"[{''.join(f'{chr(low)}-{chr(high)}' for low, high in _UNSEEN)}\r]")
_PATTERN = re.compile(pattern())
# For a terminal: every control character. A line break would let a text forge a line of output.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split `text` into pieces to show as they are (`False`) and single invisible characters (`True`)."""
    if text and len(text) <= _BLANK_CHARS and text.isspace():
        yield from ((char, True) for char in text)
        return
    begin = 0
    if _ANY.search(text) is not None:
        for found in _PATTERN.finditer(text):
            if found[1] is not None:
                if begin < found.start():
                    yield text[begin : found.start()], False
                yield found[1], True
                begin = found.end()
    if begin < len(text):
        yield text[begin:], False


def mark(char: str) -> str:
    """Return the mark of an invisible character."""
    return f"⟨U+{ord(char):04X}⟩"


def visible(text: str) -> str:
    """Return `text` with every invisible character replaced by its mark."""
    return "".join(mark(piece) if unseen else piece for piece, unseen in pieces(text))


def has_unseen(text: str) -> bool:
    """Return whether `text` has an invisible character."""
    return any(unseen for _, unseen in pieces(text))


def for_terminal(text: str) -> str:
    """Return `text` as one line in which no character controls a terminal; marks are ASCII, `<U+001B>`."""
    shown = (f"<U+{ord(piece):04X}>" if unseen else piece for piece, unseen in pieces(text))
    return _CONTROL.sub(lambda found: f"<U+{ord(found[0]):04X}>", "".join(shown))
