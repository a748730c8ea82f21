"""What every management action has in common: it is checked, done, audited and published, or refused and audited.

There is one way to do a thing, `perform`, whichever door it is asked through. It is a transaction of its own, and
refuses to run within another one: what it said was done must not be undone by its caller, and a refusal's audit
row must outlive the exception that tells of it.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, final

from django.db import transaction

from marketplace_sync.governance.actors import Actor, reload_actor
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.errors import (
    DeniedError,
    ImpossibleError,
    InvalidInputError,
    MaturityRequiredError,
    SuperuserRequiredError,
    TooManyRequestsError,
)
from marketplace_sync.governance.policy import Complexity, allows, required_for
from marketplace_sync.governance.refusals import folded_refusals, refused_requests
from marketplace_sync.models import AuditRow
from marketplace_sync.signals import action_performed

R = TypeVar("R")

MAX_REASON_CHARS = 1000


def storable_text(field: str, text: str, most: int) -> str:
    """Return the text stripped. Raises `InvalidInputError` for one that is too long or cannot be stored."""
    text = text.strip()
    if len(text) > most:
        raise InvalidInputError(field, f"At most {most} characters.")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidInputError(field, "Characters that can't be stored: NUL or half of a surrogate pair.")
    return text


class Action(ABC, Generic[R]):
    """One thing that somebody wants done. Subclasses say what it is, and do it in `execute`.

    `verb` is its stable name, as the audit says it, `label` a button's text. `reason` is the actor's own, at most
    1000 characters; `origin` says from where ("api 127.0.0.1"). Raises `TypeError` without an actor,
    `InvalidInputError` for arguments that can't be.
    """

    verb: ClassVar[str]
    label: ClassVar[str]
    complexity: ClassVar[Complexity] = Complexity.CRITICAL
    superuser_only: ClassVar[bool] = False

    def __init__(self, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        if not isinstance(actor, Actor):
            raise TypeError(f"{type(self).__name__} needs an actor, not {actor!r}: anonymous requests end at the door")
        self.actor = actor
        self.reason = storable_text("reason", reason, MAX_REASON_CHARS)
        self.origin = origin
        self.details: dict[str, Any] = {}  # for the audit
        self.command_id: int | None = None
        self._actual = ""

    @property
    def target(self) -> str:
        """What it is done to, as the audit says it; "" for the mirror itself."""
        return ""

    @abstractmethod
    def execute(self) -> R:
        """Do it, within the transaction that `perform` opened. Raises `NotPossibleError` or `NoSuchTargetError`."""

    @final
    def perform(self) -> R:
        """Check, do, audit and publish; the action's result.

        Raises `DeniedError`, `NotPossibleError` or `NoSuchTargetError`, each with its one audit row written; past a
        limit `TooManyRequestsError` in their place, which the audit counts (`refusals`); `InvalidInputError`, which is
        no decision; and `RuntimeError` when called within a transaction.
        """
        try:
            with transaction.atomic(durable=True):
                self._check()
                result = self.execute()
                row = self._record(Outcome.PERFORMED, self.required())
                transaction.on_commit(partial(self._publish, row.pk))
        except TooManyRequestsError:
            self._refuse(Outcome.NOT_POSSIBLE, self.required())
            raise
        except (DeniedError, ImpossibleError) as refusal:
            if isinstance(refusal, DeniedError):
                wait = self._refuse(Outcome.REFUSED, refusal.required)
            else:
                wait = self._refuse(Outcome.NOT_POSSIBLE, self.required())
            if wait is not None:
                raise TooManyRequestsError("Too many refused requests.", "throttled", wait) from None
            raise
        return result

    @classmethod
    def required(cls) -> str:
        """What it takes: a maturity, or `SUPERUSER`."""
        return SuperuserRequiredError.required if cls.superuser_only else required_for(cls.complexity)

    @classmethod
    def check_right(cls, actor: Actor | None) -> None:
        """Raise `DeniedError` where the policy refuses this action to an actor, as the database knows it now."""
        if actor is None or not allows(actor.maturity, cls.complexity):
            raise MaturityRequiredError(required_for(cls.complexity), actor.maturity if actor else None)
        if cls.superuser_only and not actor.is_superuser:
            raise SuperuserRequiredError

    def _check(self) -> None:
        now = reload_actor(self.actor)
        self._actual = now.maturity if now else ""
        self.check_right(now)

    def _refuse(self, outcome: AuditRow.Outcome, required: str) -> float | None:
        """Write the refusal's row. Past the limit count it instead, and return the seconds until the next row."""
        wait = refused_requests.admit(self.actor.ident)
        if wait is None:
            self._record(outcome, required)
        else:
            folded_refusals.add(self.actor, self.verb, actual=self._actual, required=required, origin=self.origin)
        return wait

    def _record(self, outcome: AuditRow.Outcome, required: str) -> AuditRow:
        return record(
            self.actor,
            verb=self.verb,
            outcome=outcome,
            actual=self._actual,
            required=required,
            target=self.target,
            reason=self.reason,
            origin=self.origin,
            details=self.details,
            command_id=self.command_id,
        )

    def _publish(self, audit_id: int) -> None:
        action_performed.send_robust(
            type(self), verb=self.verb, target=self.target, audit_id=audit_id, command_id=self.command_id
        )
