"""A secret key that is created once and kept in a file."""

import contextlib
import os
import secrets
from pathlib import Path


def kept_key(path: Path) -> str:
    """Return the key in this file, and create it where there is none. Raises `OSError`.

    The key is written under another name and linked into place. So it appears complete or not at all, and of several
    processes that start together one wins and all read its key.
    """
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = ""
    if key:
        return key
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50) + "\n")
        if path.exists() and not path.read_text().strip():
            # Empty, as after a full disk: no process can have used it.
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text().strip()
