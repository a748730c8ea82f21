"""Errors of actions. Each text is written for the actor."""

from marketplace_sync.governance.policy import Maturity


class ActionError(Exception):
    """The base of all. API and admin show it: `code` is stable, `detail` is for people."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class DeniedError(ActionError):
    """The policy refuses the action: 403. `required` is what the action requires, as in the audit."""

    required = ""
    code = "denied"


class MaturityRequiredError(DeniedError):
    """403 `{"detail", "code": "maturity_required", "required", "actual"}`.

    `actual` is `None` when the actor was disabled or deleted after the request was authenticated.
    """

    code = "maturity_required"

    def __init__(self, required: Maturity, actual: Maturity | None) -> None:
        who = f"you are {actual}" if actual else "this account is no longer active"
        super().__init__(f"This needs maturity {required}; {who}.")
        self.required = required
        self.actual = actual


class SuperuserRequiredError(DeniedError):
    """Only a superuser manages agents and their keys: 403, code `superuser_required`."""

    required = "SUPERUSER"
    code = "superuser_required"

    def __init__(self) -> None:
        super().__init__("Only a superuser may do this.")


class PersonRequiredError(DeniedError):
    """Agents may not do this, whatever their maturity: 403, code `person_required`."""

    required = "PERSON"
    code = "person_required"

    def __init__(self) -> None:
        super().__init__(
            "Only a person may approve removals. Have one review the sync run, or set APPROVALS_BY_AGENTS=true."
        )


class ImpossibleError(ActionError):
    """The actor has the right, but the action cannot be executed."""

    code = "impossible"


class NotPossibleError(ImpossibleError):
    """The target's state does not allow the action: 409."""

    code = "not_possible"


class HeldChangedError(NotPossibleError):
    """The removals on hold are not as many as the approver has seen: 409, code `held_changed`."""

    code = "held_changed"


class NoSuchTargetError(ImpossibleError):
    """There is no such sync run, dead letter, agent or key: 404."""

    code = "not_found"


class TooManyRequestsError(ActionError):
    """The actor has reached a limit: 429; it may try again after `retry_after` seconds."""

    def __init__(self, detail: str, code: str, retry_after: float) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after


class InvalidInputError(ActionError, ValueError):
    """An argument is invalid: 400. This is no decision, so it is not audited.

    Raised by an action's constructor, and by `perform` where only an actor with the right may learn of it.

    `field` names the argument.
    """

    code = "invalid"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
