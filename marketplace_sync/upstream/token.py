"""The current token: it may be replaced while the process runs."""

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

# Seconds: a file is read at most this often, however many requests are sent.
LOOK_EVERY = 1.0
# How many replaced tokens, the latest, are still kept out of the logs. One that is renewed each hour makes some
# nine thousand per year, and each known one makes every log line slower.
KEPT_SECRET = 8
# A token has at most 10,000 characters; a larger file is a mistake.
_MAX_FILE_BYTES = 65_536

Source = Callable[[], str]


class Token:
    """The token in use. `again` re-reads it from its source; `None` if it can't change.

    If the source can't be read, is empty or contains no token, the one in use stays, with one warning until it is
    readable again. Every token is kept out of the logs before it is examined.
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
        """Return the token; re-read it if that was last done a second ago or longer."""
        return self.look() if self._clock() - self._looked_at >= LOOK_EVERY else self._token

    def look(self) -> Secret:
        """Re-read the token and return it."""
        self._looked_at = self._clock()
        if self._again is None:
            return self._token
        try:
            found = read_token(self._again)
        except InvalidValueError as error:
            if error.message != self._problem:
                log.warning("token_unreadable", reason=f"the token's file {error.message} The token stays as it was.")
            self._problem = error.message
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
    """Return the source's token. Raises `InvalidValueError`, whose message continues after the source's name."""
    hint = "It must contain the token as the marketplace issued it, and nothing else."
    try:
        text = source().strip()
    except OSError as error:
        raise InvalidValueError(
            f"can't be read: {error.strerror}.", "It must be a file that this user may read."
        ) from None
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise InvalidValueError(f"can't be read: {reason}.", hint) from None
    protect(text)
    if not text:
        raise InvalidValueError("is empty.", hint)
    token: Secret = parse(BY_NAME["ATOM_SAAS_API_TOKEN"], text)
    return token


def file_source(path: str) -> Source:
    """Return a source that reads this file, following its links each time. It raises `OSError` and `UnicodeError`."""

    def read() -> str:
        # Not a pipe or a device: opening one may block the event loop for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {_MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")

    return read
