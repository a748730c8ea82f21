"""Answer HTTP requests as the marketplace does, without sockets."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.listing import (
    MAX_PAGE_SIZE,
    alias_category,
    alias_skill,
    drift,
    matching,
    page_of,
)
from marketplace_sync.simulator.marketplace import AlreadyRatedError, Marketplace, Snapshot
from marketplace_sync.simulator.variant import Variant
from marketplace_sync.simulator.wire import encode, read_time, write_time

VERSION = "1.0.0"
MAX_COMMENT_CHARS = 1_000
DOCUMENTED = Variant()
CHALLENGE = ("WWW-Authenticate", 'Bearer realm="atom-saas", error="invalid_token"')

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request. `target` is the path with its query; header names are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; Date and Content-Length are added on the wire."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()


def error(status: int, code: str, message: str, headers: Headers = (), **more: Any) -> Answer:
    return Answer(status, encode({"error": code, "message": message, **more}), headers=headers)


def too_many(seconds: float, *, now: datetime, as_date: bool = False) -> Answer:
    """Return a 429 with the wait in its header and in its body."""
    header = retry_after(seconds, now=now, as_date=as_date)
    return error(429, "rate_limited", "Too many requests.", (header,), retry_after=max(1, math.ceil(seconds)))


def retry_after(seconds: float, *, now: datetime, as_date: bool = False) -> tuple[str, str]:
    """Return the Retry-After header: whole seconds, at least 1, or an HTTP date."""
    whole = max(1, math.ceil(seconds))
    when = format_datetime(now + timedelta(seconds=whole), usegmt=True)
    return ("Retry-After", when if as_date else str(whole))


class Api:
    """Answers requests from the catalogue.

    `stale` is the snapshot that the fault stale-page serves. `now` is the server's clock, aware.
    """

    def __init__(
        self, market: Marketplace, faults: FaultSet, token: str, now: Callable[[], datetime],
        variant: Variant = DOCUMENTED,
    ) -> None:  # fmt: skip
        self.market = market
        self.faults = faults
        self.token = token
        self.now = now
        self.variant = variant
        self.stale: Snapshot | None = None

    def fault(self, request: HttpRequest) -> Answer | None:
        """Return the answer of a faulty server, which ignores the request; `None` where no such fault is set."""
        target = request.target
        if self.faults.take("unauthorized", target) is not None:
            return self.unauthorized()
        if (slow_down := self.faults.take("http-429", target)) is not None:
            return too_many(slow_down["retry_after"], now=self.now(), as_date=slow_down["http_date"])
        if self.faults.take("http-500", target) is not None:
            return error(500, "internal_error", "Something went wrong.")
        if self.faults.take("http-503", target) is not None:
            return error(503, "maintenance", "Down for maintenance.")
        if (away := self.faults.take("redirect", target)) is not None:
            return Answer(302, b"", "text/plain", (("Location", away["location"]),))
        if self.faults.take("html-200", target) is not None:
            return Answer(200, b"<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>", "text/html")
        return None

    def authorized(self, request: HttpRequest) -> bool:
        return self.variant.api_token(request.headers) == self.token

    @staticmethod
    def unauthorized() -> Answer:
        return error(401, "unauthorized", "Bad or expired token.", (CHALLENGE,))

    def answer(self, request: HttpRequest) -> Answer:
        """Return the answer to an authorized request, from a server without those faults."""
        path = self.variant.documented(urlsplit(request.target).path)
        single = path.removeprefix("/api/v1/skills/")
        match request.method, path:
            case "GET", "/health":
                return self._json({"status": "healthy", "timestamp": write_time(self.now()), "version": VERSION})
            case "GET", "/api/v1/skills":
                return self._skills(request.target)
            case "GET", "/api/v1/categories":
                return self._categories(request.target)
            case "GET", _ if single != path and single:
                return self._skill(unquote(single), request.target)
            case "POST", "/api/v1/ratings":
                return self._rate(request.body)
            case _, "/api/v1/ratings":
                return error(405, "method_not_allowed", "Use POST.", (("Allow", "POST"),))
            case _, "/health" | "/api/v1/skills" | "/api/v1/categories":
                return error(405, "method_not_allowed", "Use GET.", (("Allow", "GET"),))
            case _:
                return error(404, "not_found", "There is nothing here.")

    @staticmethod
    def _json(body: Any, status: int = 200) -> Answer:
        return Answer(status, encode(body))

    def _truth(self, target: str) -> Marketplace | Snapshot:
        if self.stale is not None and self.faults.take("stale-page", target) is not None:
            return self.stale
        return self.market

    def _skills(self, target: str) -> Answer:
        params = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
        try:
            page, page_size = int(params.get("page", 1)), int(params.get("page_size", 100))
        except ValueError:
            return error(400, "bad_request", "page and page_size must be whole numbers.")
        if page < 1 or page_size < 1:
            return error(400, "bad_request", "page and page_size start at 1.")
        if page > 1 and (moving := self.faults.take("page-drift", target)) is not None:
            drift(self.market, announce=moving["announce"])
        rows = matching(self._truth(target).skills, params.get("query", ""), params.get("category", ""))
        return self._json(page_of(rows, page, min(page_size, MAX_PAGE_SIZE), self.faults, target))

    def _categories(self, target: str) -> Answer:
        rows = list(self._truth(target).categories.values())
        if self.faults.take("aliases", target) is not None:
            rows = [alias_category(row) for row in rows]
        return self._json(rows if self.faults.take("bare-list", target) is not None else {"categories": rows})

    def _skill(self, skill_id: str, target: str) -> Answer:
        skill = self.market.skills.get(skill_id)
        if skill is None:
            return error(404, "not_found", "There is no such skill.")
        body = {**skill, "ratings": self.market.votes(skill_id)}
        return self._json(alias_skill(body) if self.faults.take("aliases", target) is not None else body)

    def _rate(self, body: bytes) -> Answer:
        try:
            vote = json.loads(body)
        except ValueError:
            return error(400, "bad_request", "The body is not JSON.")
        match vote:
            case {"skill_id": str(skill_id), "rating": int(rating), "user_id": str(user_id)} if user_id:
                comment = vote.get("comment") or ""
            case _:
                return error(400, "bad_request", "skill_id, rating and user_id are required.")
        if isinstance(rating, bool) or not 1 <= rating <= 5:
            return error(400, "bad_rating", "rating must be a whole number from 1 to 5.")
        if not isinstance(comment, str) or len(comment) > MAX_COMMENT_CHARS:
            return error(400, "bad_comment", f"comment must be text of at most {MAX_COMMENT_CHARS} characters.")
        try:
            cast = self.market.vote(skill_id, user_id, rating, comment, read_time(vote.get("timestamp")))
        except KeyError:
            return error(404, "not_found", "There is no such skill.")
        except AlreadyRatedError:
            return error(409, "already_rated", "That person has rated this skill; the newest timestamp wins.")
        skill = self.market.skills[skill_id]
        figures = {"average_rating": skill["average_rating"], "rating_count": skill["rating_count"]}
        rated = {"rating_id": cast["rating_id"], "skill_id": skill_id, "rating": rating}
        return self._json({"success": True, **rated, **figures, "created_at": cast["created_at"]})
