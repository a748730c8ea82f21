"""The token as it stands now: it may be replaced while the process runs."""

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

from marketplace_sync.conf import BY_NAME
from marketplace_sync.logs import Secret, forget, protect
from marketplace_sync.setting import InvalidValueError
from marketplace_sync.setting_values import parse

log = structlog.get_logger(__name__)

# A file is looked into at most this often, however many requests are made.
LOOK_EVERY = 1.0
# Tokens that were replaced and are still kept out of the logs, the latest. One that is renewed each hour is some
# nine thousand a year, and each that is known makes every log line dearer.
KEPT_SECRET = 8
# A token has 10,000 characters at the very most; nobody means to have a larger file read.
_MAX_FILE_BYTES = 65_536

Source = Callable[[], str]


class Token:
    """The token in force. `again` reads it anew from where it came; `None` where it can't change.

    A source that can't be read, is empty or holds no token leaves the one in force, with one warning until it is
    readable again. Every token is kept out of the logs from before it is looked at.
    """

    def __init__(
        self, first: Secret, again: Source | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        protect(first)
        self._token = first
        self._again = again
        self._clock = clock
        self._looked_at = clock()
        self._problem = ""
        self._replaced: deque[Secret] = deque()

    def now(self) -> Secret:
        """The token, looked up anew where that was last done a second ago."""
        return self.look() if self._clock() - self._looked_at >= LOOK_EVERY else self._token

    def look(self) -> Secret:
        """The token, looked up anew."""
        self._looked_at = self._clock()
        if self._again is None:
            return self._token
        try:
            found = read_token(self._again)
        except InvalidValueError as unfit:
            if unfit.message != self._problem:
                log.warning("token_unreadable", reason=f"the token's file {unfit.message} The token stays as it was.")
            self._problem = unfit.message
            return self._token
        self._problem = ""
        if found != self._token:
            self._replace(found)
        return self._token

    def _replace(self, found: Secret) -> None:
        if found in self._replaced:
            self._replaced.remove(found)
        self._replaced.append(self._token)
        if len(self._replaced) > KEPT_SECRET:
            forget(self._replaced.popleft())
        self._token = found
        log.info("token_changed")


def read_token(source: Source) -> Secret:
    """The token that the source gives. Raises `InvalidValueError`, whose message goes on after the source's name."""
    hint = "It must hold the token as the marketplace gave it, and nothing else."
    try:
        text = source().strip()
    except OSError as fault:
        raise InvalidValueError(
            f"can't be read: {fault.strerror}.", "It must be a file that this user may read."
        ) from None
    except ValueError as fault:
        reason = "it is not UTF-8" if isinstance(fault, UnicodeError) else str(fault)
        raise InvalidValueError(f"can't be read: {reason}.", hint) from None
    protect(text)
    if not text:
        raise InvalidValueError("is empty.", hint)
    token: Secret = parse(BY_NAME["ATOM_SAAS_API_TOKEN"], text)
    return token


def file_source(path: str) -> Source:
    """Reads this file, through whatever links lead to it by then. It gives `OSError` and `UnicodeError`."""

    def read() -> str:
        # Not a pipe or a device: opening one may wait for ever, and the event loop with it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {_MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")

    return read
