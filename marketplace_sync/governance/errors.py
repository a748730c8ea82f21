"""How an action can end other than by being done. Each text is for whoever asked."""

from marketplace_sync.governance.policy import Maturity


class ActionError(Exception):
    """What the doors translate: `code` is stable, `detail` for people."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class DeniedError(ActionError):
    """The policy says no: 403. `required` is what it takes, as the audit says it."""

    required = ""
    code = "denied"


class MaturityRequiredError(DeniedError):
    """403 `{"detail", "code": "maturity_required", "required", "actual"}`.

    `actual` is `None` when the actor has ceased to be one since the door let it in: disabled, or gone.
    """

    code = "maturity_required"

    def __init__(self, required: Maturity, actual: Maturity | None) -> None:
        who = f"you are {actual}" if actual else "this account is no longer active"
        super().__init__(f"This needs maturity {required}; {who}.")
        self.required = required
        self.actual = actual


class SuperuserRequiredError(DeniedError):
    """Agents and their keys are a superuser's business: 403, code `superuser_required`."""

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
            "Only a person may approve removals. Ask one to review the run, or set APPROVALS_BY_AGENTS=true."
        )


class ImpossibleError(ActionError):
    """The actor may, but it can't be done."""

    code = "impossible"


class NotPossibleError(ImpossibleError):
    """The target's state doesn't allow it: 409."""

    code = "not_possible"


class HeldChangedError(NotPossibleError):
    """The run does not hold as many removals as the approver has seen: 409, code `held_changed`."""

    code = "held_changed"


class NoSuchTargetError(ImpossibleError):
    """There is no such run, dead letter, agent or key: 404."""

    code = "not_found"


class TooManyRequestsError(ActionError):
    """The actor has used a limit up: 429, again after `retry_after` seconds."""

    def __init__(self, detail: str, code: str, retry_after: float) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after


class InvalidInputError(ActionError, ValueError):
    """An argument that can't be: 400. No decision, so it is not audited.

    Raised by an action's constructor, and by `perform` where it may only be said to who has the right.

    `field` names the argument.
    """

    code = "invalid"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
