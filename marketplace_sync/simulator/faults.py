"""All faults of the simulated marketplace, by name.

`FAULTS` describes what each does on the wire. The code that does it is where those bytes are made:
`connection` (handshakes and HTTP transport), `http` and `listing` (answers), `announce` (the stream).
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from marketplace_sync.simulator.wire import SimulatorError


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `params` are its settings with their defaults.

    `for_a_run` replaces some of them (or `every`) for a whole run of the command, where the full strength of the fault
    would leave nothing to watch.
    """

    name: str
    description: str
    params: Mapping[str, Any] = field(default_factory=dict)
    for_a_run: Mapping[str, Any] = field(default_factory=dict)


_ALL = (
    # The stream's handshake.
    Fault("refuse", "stream connects are reset before the handshake is answered"),
    Fault("accept-then-close", "the stream is accepted and then closed (1000)", {"code": 1000}),
    Fault("slow-handshake", "the stream's handshake is answered late", {"seconds": 10.0}),
    Fault("forbidden", "the stream's handshake is answered with 403"),
    Fault("ws-429", "the stream's handshake is answered with 429 and Retry-After",
          {"retry_after": 5, "http_date": False}),
    Fault("close-4401", "the stream is accepted and closed with 4401, the token refused", {"code": 4401}),
    Fault("close-1008", "the stream is accepted and closed with 1008, policy violation", {"code": 1008}),
    # The open stream.
    Fault("mute", "streams stay open and receive, but send nothing: no event, no pong of either kind"),
    Fault("dropped-event", "an event is never sent (in a run: one in ten)", for_a_run={"every": 10}),
    Fault("duplicate", "events are sent twice"),
    Fault("reorder", "events are sent in pairs, the later one first", {"linger": 0.25}),
    Fault("oversize", "a skill_update is padded to 1.5 MiB, past the limit of 1 MiB (in a run: one in 20)",
          {"size": 3 * 2**19}, {"every": 20}),
    Fault("oversize-hard", "a skill_update is padded to 5 MiB, past any limit (in a run: one in 50)",
          {"size": 5 * 2**20}, {"every": 50}),
    Fault("malformed", "a malformed message is sent at connect and before an event (in a run: one in five)",
          {"seed": 0}, {"every": 5}),
    Fault("broken-frame", "a frame with reserved bits is sent at connect and before an event (in a run: one in 50)",
          for_a_run={"every": 50}),
    Fault("flood", "20,000 real updates, as fast as the client reads, when a stream connects", {"count": 20_000}),
    # HTTP as a whole.
    Fault("unauthorized", "401 with WWW-Authenticate for every request and handshake"),
    Fault("http-away", "HTTP connections are reset before the answer"),
    Fault("http-429", "HTTP answers are 429 with Retry-After (http_date: as a date)",
          {"retry_after": 5, "http_date": False}),
    Fault("http-500", "HTTP answers are 500"),
    Fault("http-503", "HTTP answers are 503, maintenance"),
    Fault("redirect", "HTTP answers are 302 to a login page", {"location": "/login"}),
    Fault("html-200", "HTTP answers are a web page with status 200"),
    Fault("truncated-json", "HTTP bodies are cut in the middle, with a matching length"),
    Fault("reset-mid-body", "the connection is reset in the middle of the body"),
    Fault("slow-body", "bodies trickle in, over ten seconds", {"seconds": 10.0}),
    # The listing.
    Fault("empty-listing", "the skill listing is empty, with totals of 0"),
    Fault("shrunken-listing", "the skill listing has only its first 40 %, with matching totals", {"share": 0.4}),
    Fault("partial-listing", "totals are complete, but all pages except the first and the last are empty"),
    Fault("page-drift", "between pages a skill is added in front or removed, so that rows appear twice or on no page",
          {"announce": True}),
    Fault("stale-page", "listings stay as they were when the fault was set"),
    Fault("bare-list", "listings are bare JSON lists"),
    Fault("no-totals", "skill pages have no total and total_pages"),
    Fault("aliases", "id, skill_name, avg_rating (and category in a category) instead of the documented names"),
)  # fmt: skip
FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})


class UnknownFaultError(SimulatorError, ValueError):
    """Raised for a name that no fault has. The text has the nearest name and lists all."""

    def __init__(self, name: str) -> None:
        nearest = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.4)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        super().__init__(f"There is no fault {name!r}.{hint} Faults: {', '.join(FAULTS)}.")


@dataclass(slots=True)
class Active:
    """A fault that is set, for `left` more occasions (`None`: without end)."""

    params: Mapping[str, Any]
    left: int | None
    every: int
    match: str
    seen: int = 0


class FaultSet:
    """The faults that are set.

    An occasion is what a fault can affect: a stream connect, an event, an HTTP request, a page of the listing.
    """

    def __init__(self, on_add: Callable[[str], None] | None = None) -> None:
        self._active: dict[str, Active] = {}
        self._on_add = on_add

    def add(self, name: str, times: int | None = None, *, every: int = 1, match: str = "", **params: Any) -> None:
        """Set a fault, in place of an earlier setting of it.

        `times`: the number of occasions (`None`: until removed). `every`: only each n-th occasion.
        `match`: only occasions whose subject contains this text: a request's path with query, or an event's
        `"type key"`. `params`: the fault's own settings, see `FAULTS`.
        Raises `UnknownFaultError`, and `ValueError` for a setting that the fault does not have.
        """
        fault = FAULTS.get(name)
        if fault is None:
            raise UnknownFaultError(name)
        unknown = params.keys() - fault.params.keys()
        if unknown:
            raise ValueError(
                f"Fault {name!r} has no setting {', '.join(sorted(unknown))}; it has {dict(fault.params)}."
            )
        if every < 1 or (times is not None and times < 1):
            raise ValueError("times and every must be at least 1.")
        self._active[name] = Active({**fault.params, **params}, times, every, match)
        if self._on_add is not None:
            self._on_add(name)

    def add_for_a_run(self, name: str) -> None:
        """Set a fault for a whole run of the command, at a strength that leaves something to watch."""
        fault = FAULTS.get(name)
        self.add(name, **(fault.for_a_run if fault is not None else {}))

    def remove(self, name: str) -> None:
        """Remove a fault, if it is set. Raises `UnknownFaultError`."""
        if name not in FAULTS:
            raise UnknownFaultError(name)
        self._active.pop(name, None)

    def clear(self) -> None:
        self._active.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._active

    def __bool__(self) -> bool:
        return bool(self._active)

    def is_permanent(self, name: str) -> bool:
        """Return whether the fault is set without end, so that it affects open connections too. Uses up nothing."""
        active = self._active.get(name)
        return active is not None and active.left is None

    def take(self, name: str, subject: str = "") -> Mapping[str, Any] | None:
        """Return the fault's settings if it affects this occasion, else `None`. Uses up one of its `times`."""
        active = self._active.get(name)
        if active is None or active.match not in subject:
            return None
        active.seen += 1
        if active.seen % active.every:
            return None
        if active.left is not None:
            active.left -= 1
            if not active.left:
                del self._active[name]
        return active.params
