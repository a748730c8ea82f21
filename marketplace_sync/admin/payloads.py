"""Show bytes from the marketplace: as inert text, and as a hex dump."""

BYTES_PER_LINE = 16


def as_text(raw: bytes) -> str:
    """Return UTF-8 as text and every other byte as an escape. The page marks invisible characters."""
    return raw.decode("utf-8", "backslashreplace")


def as_hex(raw: bytes) -> str:
    """Return a hex dump: offset, bytes and printable ASCII, 16 bytes per line."""
    lines = []
    for start in range(0, len(raw), BYTES_PER_LINE):
        part = raw[start : start + BYTES_PER_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:06x}  {part.hex(' '):<{BYTES_PER_LINE * 3 - 1}}  {ascii_text}")
    return "\n".join(lines)
