"""The base of all management actions: check, execute, audit and publish, or refuse and audit.

API, admin pages and commands all call `perform`. It is a transaction of its own, and raises within another one: the
caller must not undo what was audited as done, and a refusal's audit row must outlive the exception.
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
    """Return the text stripped. Raises `InvalidInputError` if it has over `most` characters or cannot be stored."""
    text = text.strip()
    if len(text) > most:
        raise InvalidInputError(field, f"At most {most} characters.")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidInputError(field, "It contains NUL or half of a surrogate pair, which cannot be stored.")
    return text


class Action(ABC, Generic[R]):
    """One action of one actor. Subclasses do it in `execute`.

    `verb` is the action's stable name in the audit, `label` the text of its button. `reason` is the actor's, at most
    1000 characters; `origin` names the client ("api 127.0.0.1"). Raises `TypeError` without an actor, and
    `InvalidInputError` for invalid arguments.
    """

    verb: ClassVar[str]
    label: ClassVar[str]
    complexity: ClassVar[Complexity] = Complexity.CRITICAL
    superuser_only: ClassVar[bool] = False

    def __init__(self, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        if not isinstance(actor, Actor):
            raise TypeError(f"{type(self).__name__} needs an actor, not {actor!r}. Refuse anonymous requests before.")
        self.actor = actor
        self.reason = storable_text("reason", reason, MAX_REASON_CHARS)
        self.origin = origin
        self.details: dict[str, Any] = {}  # for the audit
        self.command_id: int | None = None
        self._actual = ""

    @property
    def target(self) -> str:
        """The object of the action, as the audit names it; "" for the mirror itself."""
        return ""

    @abstractmethod
    def execute(self) -> R:
        """Execute the action, in the transaction of `perform`. Raises `NotPossibleError` or `NoSuchTargetError`."""

    @final
    def perform(self) -> R:
        """Check, execute, audit and publish the action; return its result.

        Raises `DeniedError`, `NotPossibleError` or `NoSuchTargetError`, each with one audit row written. Over the limit
        of refusals it raises `TooManyRequestsError` instead, which the audit counts (`refusals`). `InvalidInputError`
        is no decision and leaves no row. Raises `RuntimeError` within a transaction.
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
        """Return what the action requires of its actor: a maturity, or `SUPERUSER`."""
        return SuperuserRequiredError.required if cls.superuser_only else required_for(cls.complexity)

    @classmethod
    def check_right(cls, actor: Actor | None) -> None:
        """Raise `DeniedError` if the policy refuses this action to the actor, or if there is no actor."""
        if actor is None or not allows(actor.maturity, cls.complexity):
            raise MaturityRequiredError(required_for(cls.complexity), actor.maturity if actor else None)
        if cls.superuser_only and not actor.is_superuser:
            raise SuperuserRequiredError

    def _check(self) -> None:
        now = reload_actor(self.actor)
        self._actual = now.maturity if now else ""
        self.check_right(now)

    def _refuse(self, outcome: AuditRow.Outcome, required: str) -> float | None:
        """Write the refusal's audit row. Over the limit count it instead, and return the seconds until the next row."""
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
