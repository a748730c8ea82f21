"""Limit how often passwords may be tried, and how many are hashed at the same time.

An attempt is counted before its password is hashed; a right password takes the count back. So parallel guesses cannot
exceed the limit together, and refused guesses cost no CPU time for hashing. Three limits, all per minute:

- failures of one account from one address: stops a guesser without locking out others;
- failures of one address, for any account: stops one password tried on many names;
- failures of one account from all addresses: stops guesses from many addresses. Over this limit, an address that has
  failed for the account is refused. An address that has not failed is admitted up to 5 times per 5 s, so that strangers
  cannot lock the owner out. An address from which the account has logged in before is always admitted.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rest_framework import status
from rest_framework.exceptions import APIException

from marketplace_sync.governance.sliding_window import SlidingWindow

log = structlog.get_logger(__name__)

MINUTE = 60.0
FAILURES_OF_ACCOUNT_AT_ADDRESS = 10
FAILURES_OF_ADDRESS = 30
FAILURES_OF_ACCOUNT = 50
# Over `FAILURES_OF_ACCOUNT`: attempts from addresses without a failure, per 5 s.
STRANGERS, STRANGERS_SECONDS = 5, 5.0
# A hash takes 0.1 to 0.5 s of one core. Two at a time leave the other cores to other requests.
HASHING, WAITING, PATIENCE = 2, 8, 2.0
# Pairs of account and address that have logged in; the oldest is dropped first.
_MAX_KNOWN = 10_000
# Django's own limit for a user name. A longer one has no account.
_MAX_NAME = 150


class LoginRefusedError(APIException):
    """The password was not checked. `wait`: whole seconds until an attempt can succeed (`Retry-After`)."""

    status_code: int = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "throttled"

    def __init__(self, detail: str, wait: float) -> None:
        super().__init__(detail)
        self.wait = max(1, math.ceil(wait))


class LoginBusyError(LoginRefusedError):
    """Too many passwords are being checked now."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "busy"


class Attempt:
    """One password to check. Call `succeed` if it is right."""

    def __init__(self) -> None:
        self.succeeded = False

    def succeed(self) -> None:
        self.succeeded = True


class LoginLimits:
    """The limits of one process. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, patience: float = PATIENCE) -> None:
        self._pairs = SlidingWindow(FAILURES_OF_ACCOUNT_AT_ADDRESS, MINUTE, clock)
        self._addresses = SlidingWindow(FAILURES_OF_ADDRESS, MINUTE, clock)
        self._accounts = SlidingWindow(FAILURES_OF_ACCOUNT, MINUTE, clock)
        self._strangers = SlidingWindow(STRANGERS, STRANGERS_SECONDS, clock)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(HASHING)
        self._places = threading.Semaphore(HASHING + WAITING)
        self._patience = patience

    @contextmanager
    def attempt(self, account: str, address: str) -> Iterator[Attempt]:
        """Count an attempt, wait for a slot, and let the caller hash the password within the block.

        Raises `LoginRefusedError`. An exception from the block does not count as a wrong password.
        """
        account = account[:_MAX_NAME]
        counted = self._count(account, address)
        attempt, finished = Attempt(), False
        try:
            with self._slot():
                yield attempt
                finished = True
        finally:
            if attempt.succeeded:
                self._remember(_pair(account, address))
            if attempt.succeeded or not finished:
                for window, key in counted:
                    window.take_back(key)

    def clear(self) -> None:
        """Forget all attempts."""
        for window in (self._pairs, self._addresses, self._accounts, self._strangers):
            window.clear()
        self._known.clear()

    def _count(self, account: str, address: str) -> list[tuple[SlidingWindow, str]]:
        """Count the attempt in each window and return those. Raises `LoginRefusedError` without counting anything."""
        pair = _pair(account, address)
        counted: list[tuple[SlidingWindow, str]] = []

        def count(window: SlidingWindow, key: str) -> float | None:
            wait = window.admit(key)
            if wait is None:
                counted.append((window, key))
            return wait

        wait = count(self._addresses, address)
        if wait is None:
            wait = count(self._pairs, pair)
        of_account = None
        if wait is None:
            of_account = count(self._accounts, account)
            if of_account is not None and pair not in self._known:
                # The count includes this attempt.
                wait = of_account if self._pairs.count(pair) > 1 else count(self._strangers, account)
        if wait is None:
            return counted
        for window, key in counted:
            window.take_back(key)
        log.warning("login_refused", address=address, of="address" if of_account is None else "account")
        where = "from this address" if of_account is None else "for this account"
        raise LoginRefusedError(f"Too many failed logins {where}. Try again in {_seconds(wait)}.", wait)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise self._busy()
        try:
            if not self._slots.acquire(timeout=self._patience):
                raise self._busy()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()

    def _busy(self) -> LoginBusyError:
        log.warning("logins_busy", hashing=HASHING, waiting=WAITING)
        return LoginBusyError("Too many people are logging in now. Try again in 2 seconds.", 2.0)

    def _remember(self, pair: str) -> None:
        with self._lock:
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)


def _pair(account: str, address: str) -> str:
    # Addresses contain no space, so the key of a pair is unique.
    return f"{address} {account}"


def _seconds(wait: float) -> str:
    whole = max(1, math.ceil(wait))
    return f"{whole} second{'' if whole == 1 else 's'}"
