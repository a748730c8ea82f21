"""The catalogue of the simulated marketplace: skills and categories as dicts, as they are on the wire.

Every change goes through a method here, gets a time that is strictly newer than the record's last one, and produces the
message that the stream announces. A test may also change `skills` and `categories` directly: such a change is not
announced.
"""

import copy
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from marketplace_sync.protocol.message_types import (
    BY_NAME,
    CATEGORY_UPDATE,
    RATING_UPDATE,
    SKILL_DELETE,
    SKILL_UPDATE,
    MessageType,
)
from marketplace_sync.simulator.wire import read_time, write_time

Record = dict[str, Any]
Message = dict[str, Any]
# Called with every announced message, and its JSON where that exists already.
Listener = Callable[[Message, bytes | None], None]

_TICK = timedelta(microseconds=1)


class AlreadyRatedError(Exception):
    """Raised for a vote of a person whose stored vote is not older."""


class Snapshot(NamedTuple):
    """A deep copy of the catalogue: skills by id, categories by name."""

    skills: dict[str, Record]
    categories: dict[str, Record]


class Marketplace:
    """The catalogue. `skills` is in order of creation; the listing shows the newest first.

    `now` returns the time of changes, aware; a `SimulatorServer` replaces it with its own clock.
    """

    def __init__(self, skills: Iterable[Record] = (), categories: Iterable[Record] = ()) -> None:
        self.skills: dict[str, Record] = {skill["skill_id"]: copy.deepcopy(skill) for skill in skills}
        self.categories: dict[str, Record] = {entry["name"]: copy.deepcopy(entry) for entry in categories}
        self.listeners: list[Listener] = []
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        # The newest time sent for a record, its removal included: a skill that is created again must be newer than
        # that.
        self._newest: dict[str, datetime] = {}
        self._gone: dict[str, str] = {}
        self._votes: dict[str, dict[str, Record]] = {}

    def snapshot(self) -> Snapshot:
        return Snapshot(copy.deepcopy(self.skills), copy.deepcopy(self.categories))

    def put_skill(self, record: Record, *, announce: bool = True, stamp: bool = True) -> Record:
        """Create or update a skill; fields that `record` does not have stay as they are. Returns the stored record.

        `stamp`: set `updated_at` to now, strictly newer than anything sent for this skill (and `created_at`, where
        a new skill has none); otherwise times are as in `record`. The message has the fields of `record`.
        """
        data = copy.deepcopy(record)
        skill_id = data["skill_id"]
        stored = self.skills.get(skill_id)
        if stamp:
            data["updated_at"] = self._next_time(skill_id, stored, data)
            if stored is None:
                data.setdefault("created_at", data["updated_at"])
        self.skills[skill_id] = copy.deepcopy(data) if stored is None else {**stored, **copy.deepcopy(data)}
        self._gone.pop(skill_id, None)
        if announce:
            self._announce(SKILL_UPDATE, data)
        return self.skills[skill_id]

    def delete_skill(self, skill_id: str, *, announce: bool = True) -> str:
        """Remove a skill. Returns its `deleted_at`. Raises `KeyError` when there is none."""
        stored = self.skills[skill_id]
        deleted_at = self._next_time(skill_id, stored)
        del self.skills[skill_id]
        self._votes.pop(skill_id, None)
        self._gone[skill_id] = deleted_at
        if announce:
            self._announce(SKILL_DELETE, {"skill_id": skill_id, "deleted_at": deleted_at})
        return deleted_at

    def rate(self, skill_id: str, rating: int, *, announce: bool = True, with_average: bool = True) -> Record:
        """Add an anonymous vote, 1 to 5. `updated_at` of the skill stays: only its figures change.

        `with_average=False` announces the vote alone, like a server that has not counted yet.
        Returns the stored record. Raises `KeyError` when there is no such skill.
        """
        skill = self.skills[skill_id]
        self._count_vote(skill, rating, instead_of=None)
        if announce:
            self._announce_rating(skill_id, rating, with_average=with_average)
        return skill

    def vote(self, skill_id: str, user_id: str, rating: int, comment: str, at: datetime | None) -> Record:
        """Count a person's vote, as `POST /api/v1/ratings` does. Returns it, with its `rating_id`.

        One person has one vote: a second one replaces it only when it names a time `at` that is newer.
        Raises `KeyError` when there is no such skill, `AlreadyRatedError` when the stored vote is not older.
        """
        skill = self.skills[skill_id]
        votes = self._votes.setdefault(skill_id, {})
        earlier = votes.get(user_id)
        if earlier is not None:
            earlier_at = read_time(earlier["created_at"])
            if at is None or (earlier_at is not None and at <= earlier_at):
                raise AlreadyRatedError(user_id)
        self._count_vote(skill, rating, instead_of=earlier["rating"] if earlier else None)
        votes[user_id] = {
            "rating_id": str(uuid.uuid4()), "user_id": user_id, "rating": rating, "comment": comment,
            "created_at": write_time(at or self.now()),
        }  # fmt: skip
        self._announce_rating(skill_id, rating, with_average=True)
        return votes[user_id]

    def votes(self, skill_id: str) -> list[Record]:
        """Return the votes of persons on a skill, oldest first; anonymous ones are only counted."""
        return list(self._votes.get(skill_id, {}).values())

    def put_category(self, record: Record, *, announce: bool = True, stamp: bool = True) -> Record:
        """Create or update a category, like `put_skill`."""
        data = copy.deepcopy(record)
        name = data["name"]
        stored = self.categories.get(name)
        if stamp:
            data["updated_at"] = self._next_time(f"category {name}", stored, data)
            if stored is None:
                data.setdefault("created_at", data["updated_at"])
        self.categories[name] = {**(stored or {}), **copy.deepcopy(data)}
        if announce:
            self._announce(CATEGORY_UPDATE, data)
        return self.categories[name]

    def apply(self, message: Message, raw: bytes | None = None) -> None:
        """Apply a whole message to the catalogue and announce it unchanged, with its own times.

        For replays: nothing is copied. `raw` is its JSON. Raises `ValueError` for a message that the protocol does not
        have.
        """
        message_type = BY_NAME.get(str(message.get("type")))
        data = message.get("data")
        key = data.get(message_type.subject.value) if message_type and isinstance(data, dict) else None
        if message_type is None or not isinstance(key, str):
            raise ValueError(f"not a message with its id, of one of the types {', '.join(BY_NAME)}")
        _TAKEN_BY[message_type](self, key, message)
        for listener in self.listeners:
            listener(message, raw)

    def _take_skill(self, skill_id: str, message: Message) -> None:
        self.skills[skill_id] = (
            {**self.skills[skill_id], **message["data"]} if skill_id in self.skills else message["data"]
        )
        self._gone.pop(skill_id, None)

    def _take_removal(self, skill_id: str, message: Message) -> None:
        self.skills.pop(skill_id, None)
        self._votes.pop(skill_id, None)
        self._gone[skill_id] = message["data"].get("deleted_at") or message.get("timestamp") or ""

    def _take_category(self, name: str, message: Message) -> None:
        self.categories[name] = {**self.categories.get(name, {}), **message["data"]}

    def _take_rating(self, skill_id: str, message: Message) -> None:
        data = message["data"]
        figures = {name: data[name] for name in ("average_rating", "rating_count") if name in data}
        if skill_id in self.skills:
            self.skills[skill_id] = {**self.skills[skill_id], **figures}

    def _next_time(self, key: str, *records: Record | None) -> str:
        """Return now, or one microsecond after the newest time that was sent for `key`."""
        times = [read_time(record.get("updated_at")) for record in records if record]
        times += [self._newest.get(key), read_time(self._gone.get(key))]
        newest = max((time for time in times if time is not None), default=None)
        moment = self.now()
        if newest is not None and moment <= newest:
            moment = newest + _TICK
        self._newest[key] = moment
        return write_time(moment)

    @staticmethod
    def _count_vote(skill: Record, rating: int, *, instead_of: int | None) -> None:
        count = int(skill.get("rating_count") or 0)
        total = float(skill.get("average_rating") or 0) * count + rating - (instead_of or 0)
        count = max(1, count + (instead_of is None))
        skill["rating_count"] = count
        # An average is rounded, so removing an old vote from it may leave the range slightly.
        skill["average_rating"] = min(5.0, max(1.0, round(total / count, 2)))

    def _announce_rating(self, skill_id: str, rating: int, *, with_average: bool) -> None:
        skill = self.skills[skill_id]
        data: Record = {"skill_id": skill_id, "rating": rating}
        if with_average:
            data |= {"average_rating": skill["average_rating"], "rating_count": skill["rating_count"]}
        data["updated_at"] = self._next_time(skill_id, skill)
        self._announce(RATING_UPDATE, data)

    def _announce(self, message_type: MessageType, data: Record) -> None:
        message = {"type": message_type.name, "data": data, "timestamp": write_time(self.now())}
        for listener in self.listeners:
            listener(message, None)


# How a message of each type changes the catalogue when a recorded history is replayed.
_TAKEN_BY: Mapping[MessageType, Callable[[Marketplace, str, Message], None]] = {
    SKILL_UPDATE: Marketplace._take_skill,
    SKILL_DELETE: Marketplace._take_removal,
    CATEGORY_UPDATE: Marketplace._take_category,
    RATING_UPDATE: Marketplace._take_rating,
}
