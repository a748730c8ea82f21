"""Isolate an item whose content the database refuses, and apply the rest of its batch.

The decoder's limits should exclude everything that a column, a constraint or an index cannot store. If the database
still refuses a batch, the batch is halved until the refused item is alone. That item becomes a dead letter.

An item counts as refused after two refusals alone, because another program may cause the refusal of a larger batch. A
temporary problem (a lost connection, a lock, a full disk) is no refusal: it is raised, and the caller tries again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from django.db import DataError, Error, IntegrityError

from marketplace_sync.mirror.apply import BatchResult, apply_batch, apply_planned
from marketplace_sync.mirror.arrived import (
    LISTED_CATEGORY,
    Arrived,
    CategoryAbsent,
    Effect,
    Item,
    RefusedInput,
    SkillAbsent,
)
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.mirror.draft import BatchTooLargeError
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.plan import BatchPlan, plan_batch
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.message_types import CATEGORY_UPDATE, SKILL_DELETE, MessageType, Subject, type_of
from marketplace_sync.protocol.refusals import Code, Refusal

log = structlog.get_logger(__name__)

# SQLSTATE class 54, program_limit_exceeded: an index row or a search document is too large. It is an OperationalError
# to psycopg, but waiting does not make the row smaller.
_PROGRAM_LIMIT = "54"


def apply_each(items: Sequence[Item], lease: Lease) -> BatchResult:
    """Apply `items` in order, in one transaction unless the database refuses one or they need too much memory.

    A refused item has the effect `REFUSED`. Raises what `apply_batch` raises, except for the content of an item.
    """
    try:
        return apply_batch(items, lease)
    except BatchTooLargeError:
        pass
    except Exception as error:
        if not _refuses_content(error):
            raise
    if len(items) == 1:
        return _apply_alone(items[0], lease)
    middle = len(items) // 2
    first, second = apply_each(items[:middle], lease), apply_each(items[middle:], lease)
    return BatchResult(
        [*first.effects, *second.effects],
        second.feed_seq,
        [*first.fetch, *second.fetch],
        [*first.incomplete, *second.incomplete],
        first.fleeting + second.fleeting,
    )


def plan_ahead(items: Sequence[Item], on: BatchPlan | None) -> BatchPlan | None:
    """Plan `items` outside the transaction that will write them. `on`: the plan that is being written, if any.

    Return `None` where a plan would need too much memory, or the database refuses an item while its rows are read.
    """
    try:
        return plan_batch(items, on)
    except BatchTooLargeError:
        return None
    except Exception as error:
        if not _refuses_content(error):
            raise
    return None


@dataclass(slots=True)
class PlannedBatch:
    """A batch on its way to the database, with its plan.

    `plan`: `None` where there is none, or another attempt may have been committed already. `as_planned`: the batch is
    committed and the mirror equals the plan, so the next batch may be planned on it.
    """

    items: Sequence[Item]
    plan: BatchPlan | None
    as_planned: bool = False


def apply_planned_batch(batch: PlannedBatch, lease: Lease) -> BatchResult:
    """Apply the batch as planned, and set `as_planned`; without a usable plan do as `apply_each` does.

    Safe to call again after a lost connection: the plan is used once, as it is wrong after its own commit.
    """
    plan, batch.plan = batch.plan, None
    if plan is not None:
        try:
            with dialect().fewer_checkpoints():
                result = apply_planned(plan, lease)
        except Exception as error:
            if not _refuses_content(error):
                raise
        else:
            batch.as_planned = True
            return result
    return apply_each(batch.items, lease)


def _apply_alone(item: Item, lease: Lease) -> BatchResult:
    try:
        return apply_batch([item], lease)
    except Exception as error:
        if not _refuses_content(error):
            raise
        reason = " ".join(str(error).split())
    log.error("refused_by_database", reason=reason, item=type(item).__name__)
    dead_letters: list[Item] = [_dead_letter(item, reason)] if isinstance(item, Arrived) else []
    try:
        result = apply_batch(dead_letters, lease)
    except Exception as error:
        if not _refuses_content(error):
            raise
        log.error("dead_letter_refused_by_database", reason=str(error))
        result = apply_batch([], lease)
    return BatchResult([Effect.REFUSED], result.feed_seq)


def _refuses_content(error: Exception) -> bool:
    """Return whether the same content would be refused again.

    `OverflowError` and `UnicodeError` come from a driver that cannot send it.
    """
    if isinstance(error, DataError | IntegrityError | OverflowError | UnicodeError):
        return True
    state = getattr(error.__cause__, "sqlstate", None) if isinstance(error, Error) else None
    return bool(state and state.startswith(_PROGRAM_LIMIT))


def _dead_letter(item: Arrived, reason: str) -> RefusedInput:
    """Return the dead letter of an event. Its bytes are gone, so it is encoded again as the protocol has it."""
    message_type, data = _message_of(item.event)
    kind = message_type.name
    key = _storable(data[message_type.subject.value])
    source = DeadLetter.Source.STREAM if item.source == FeedChange.Source.STREAM else DeadLetter.Source.LISTING
    content: dict[str, object] = {"type": kind, "data": data}
    if source is DeadLetter.Source.LISTING:
        content = data
        kind = LISTED_CATEGORY if message_type.subject is Subject.CATEGORY else ""
    refusal = Refusal(Code.UNSTORABLE, "", _storable(reason), key, kind)
    # Escapes for all but ASCII: lone surrogates and NUL are no bytes of the text then.
    return RefusedInput.of(refusal, json.dumps(content, default=str), source)


def _message_of(event: Change | SkillAbsent | CategoryAbsent) -> tuple[MessageType, dict[str, object]]:
    """Return the type and the `data` of a message that would be decoded to this event."""
    if isinstance(event, SkillAbsent):
        return SKILL_DELETE, {"skill_id": event.skill_id}
    if isinstance(event, CategoryAbsent):
        return CATEGORY_UPDATE, {"name": event.name}
    message_type = type_of(event)
    return message_type, message_type.encode(event)


def _storable(text: object) -> str:
    """Return the text as any text column takes it."""
    return str(text).encode("utf-8", "replace").decode().replace("\0", "�")
