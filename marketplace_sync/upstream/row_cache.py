"""Listing rows that were read before: told the same again, byte for byte, they need not be read again.

Of an unchanged row's cost, reading it and making its fingerprint are two thirds. What is kept is what that gave, so it
decides nothing: whether the mirror still has what a row says is for the mirror to say, at each pass.
"""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from marketplace_sync.engine.merge import record_fingerprint
from marketplace_sync.protocol.events import SkillRecord

log = structlog.get_logger(__name__)

# On disk: some 400,000 rows.
MAX_BYTES = 48 * 1024 * 1024
# Once that is full no more is remembered, until of as many rows as a listing may have fewer than a quarter are known:
# then most of it is of what no listing tells any more. Of a catalogue that is too large a part is known at least.
JUDGED_ROWS = 1_000_000
# Rows a statement: 4 to 15 ms, and no more text than that is held by it. Others, the event loop among them, wait for no
# more than one; for so many seconds (rows that are not known by then are read).
_AT_ONCE = 1000
_PATIENCE = 0.05

_PAGE_BYTES = 4096
# No journal: what fails in the middle is begun anew.
_SET_UP = f"""
    PRAGMA page_size = {_PAGE_BYTES};
    PRAGMA cache_size = -512;
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE row (digest TEXT PRIMARY KEY, skill_id TEXT, fingerprint TEXT) WITHOUT ROWID;
"""
# Each as one value: row by row SQLite would ask for the interpreter's lock as often.
_FIND = """
    SELECT CAST(json_group_array(json_array(row.digest, row.skill_id, row.fingerprint)) AS BLOB)
    FROM json_each(?) AS asked CROSS JOIN row ON row.digest = asked.value
"""
_REMEMBER = """
    INSERT OR IGNORE INTO row
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)
"""
_found = msgspec.json.Decoder(list[tuple[str, str, str]]).decode
_encode = msgspec.json.Encoder().encode


class Unread:
    """The same cache for a listing that is to be read whole: it knows no row, and rows can be remembered in it."""

    def __init__(self, rows: "RowCache") -> None:
        self.digests = rows.digests

    def find(self, digests: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        return {}


class RowCache:
    """What rows said, by their bytes, as `protocol.listing.KnownRows` asks for it.

    In a temporary SQLite file of its own, whatever database the mirror has: half a MiB in memory, and on disk 12 MiB
    for 100,000 skills, some `max_bytes` at most. It is gone with the process, so a release that reads rows in another
    way reads them all. Where there is no room for it, or it breaks, rows are read as without it. Any thread may use it.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, judged_rows: int = JUDGED_ROWS) -> None:
        self._max_bytes = max_bytes
        self._judged_rows = judged_rows
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._file: sqlite3.Connection | None = None  # None: closed, or not to be had
        self._full = False
        self._asked = self._known = 0  # rows, since it is full
        self._begin()

    def close(self) -> None:
        """Nothing is known any more, and nothing is kept afterwards."""
        with self._lock:
            self._end()

    def digests(self, rows: Sequence[msgspec.Raw]) -> list[str]:
        """What each of `rows` is known under: of 128 bits, so that no two have the same."""
        return [sha256(row, usedforsecurity=False).hexdigest()[:32] for row in rows]

    def find(self, digests: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Id and fingerprint of those rows that are known, by digest."""
        known: dict[str, tuple[str, str]] = {}
        for start in range(0, len(digests), _AT_ONCE):
            some = digests[start : start + _AT_ONCE]
            if not self._lock.acquire(timeout=_PATIENCE):
                break
            try:
                answer = self._one(_FIND, _encode(some).decode())
                found = {digest: (skill_id, fingerprint) for digest, skill_id, fingerprint in _found(answer or b"[]")}
                known |= found
                self._judge(len(some), len(found))
            except (msgspec.MsgspecError, UnicodeError) as fault:  # spoiled on disk
                self._begin_anew(str(fault))
                break
            finally:
                self._lock.release()
        return known

    def remember(self, rows: Sequence[tuple[str, SkillRecord]]) -> None:
        """Keep what these rows said, each with its digest.

        Not of one that leaves fields out, for it says only what it changes; nor of one without a time, which may have
        told one that was too far ahead to believe then, and is not for ever.
        """
        for start in range(0, len(rows), _AT_ONCE):
            if self._file is None or self._full:
                return
            kept = [
                (digest, record.skill_id, fingerprint)
                for digest, record in rows[start : start + _AT_ONCE]
                if record.updated is not None and (fingerprint := record_fingerprint(record)) is not None
            ]
            with self._lock:
                self._one(_REMEMBER, _encode(kept).decode())
                self._full = (self._one("PRAGMA page_count") or 0) * _PAGE_BYTES >= self._max_bytes

    def _one(self, statement: str, *told: str) -> Any:
        """The statement's one value, if it has one and nothing goes wrong. Under the lock."""
        if self._file is None:
            return None
        try:
            with closing(self._file.execute(statement, told)) as made:
                answer = made.fetchone()
        except sqlite3.Error as fault:
            self._begin_anew(str(fault))
            return None
        return None if answer is None else answer[0]

    def _judge(self, asked: int, known: int) -> None:
        if not self._full:
            return
        self._asked += asked
        self._known += known
        if self._asked >= self._judged_rows:
            if self._known < self._asked // 4:
                self._begin_anew("most of it is of rows that are told no more")
            self._asked = self._known = 0

    def _begin_anew(self, reason: str) -> None:
        if reason not in self._told:  # once: without a folder to write to it is so at every page
            self._told.add(reason)
            log.info("rows_forgotten", reason=reason)
        self._end()
        self._begin()

    def _begin(self) -> None:
        self._full = False
        file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        try:
            file.executescript(_SET_UP)
        except sqlite3.Error:
            file.close()
        else:
            self._file = file

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
