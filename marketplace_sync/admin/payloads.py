"""Bytes that somebody else sent, for people to look at: as text in which nothing acts, and as a hex dump."""

import unicodedata

BYTES_A_LINE = 16


def as_text(raw: bytes) -> str:
    """UTF-8 where it is; every other byte, and every character that is not seen, as an escape.

    Line breaks and tabs stay. What would turn the text's direction or hide a part of it is told by its number.
    """
    return "".join(_seen(char) for char in raw.decode("utf-8", "backslashreplace"))


def as_hex(raw: bytes) -> str:
    """Offset, bytes and printable ASCII, sixteen a line."""
    lines = []
    for start in range(0, len(raw), BYTES_A_LINE):
        part = raw[start : start + BYTES_A_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:06x}  {part.hex(' '):<{BYTES_A_LINE * 3 - 1}}  {ascii_text}")
    return "\n".join(lines)


def _seen(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
