"""Bytes that somebody else sent, for people to look at: as text in which nothing acts, and as a hex dump."""

BYTES_A_LINE = 16


def as_text(raw: bytes) -> str:
    """Return UTF-8 where it is, and every other byte as an escape. The page marks what nobody sees in it."""
    return raw.decode("utf-8", "backslashreplace")


def as_hex(raw: bytes) -> str:
    """Offset, bytes and printable ASCII, sixteen a line."""
    lines = []
    for start in range(0, len(raw), BYTES_A_LINE):
        part = raw[start : start + BYTES_A_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:06x}  {part.hex(' '):<{BYTES_A_LINE * 3 - 1}}  {ascii_text}")
    return "\n".join(lines)
