"""Actions on dead letters: apply them again, or discard them."""

from collections.abc import Sequence

from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.commands import CommandAction
from marketplace_sync.governance.errors import InvalidInputError, NoSuchTargetError, NotPossibleError
from marketplace_sync.models import Command, DeadLetter

# Dead letters that one command may name.
MAX_REPLAYED_TOGETHER = 500


def _target(dead_letter_id: int) -> str:
    return f"dead letter {dead_letter_id}"


def _open_dead_letter(dead_letter_id: int) -> DeadLetter:
    """Return the dead letter, locked. Raises `NoSuchTargetError`, and `NotPossibleError` when it is not open."""
    dead_letter = DeadLetter.objects.select_for_update().filter(pk=dead_letter_id).first()
    if dead_letter is None:
        raise NoSuchTargetError(f"There is no dead letter {dead_letter_id}.")
    if dead_letter.state != DeadLetter.State.OPEN:
        raise NotPossibleError(f"Dead letter {dead_letter.pk} is {dead_letter.state} already.")
    return dead_letter


class ReplayDeadLetter(CommandAction):
    """Apply a dead letter again."""

    verb, label, command = "replay_dead_letter", "Replay dead letter", Command.Action.REPLAY

    def __init__(self, dead_letter_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.dead_letter_id = dead_letter_id

    @property
    def target(self) -> str:
        return _target(self.dead_letter_id)

    def args(self) -> dict[str, object]:
        dead_letter = _open_dead_letter(self.dead_letter_id)
        self.details = {"code": dead_letter.code, "key": dead_letter.key}
        return {"dead_letter": dead_letter.pk}


class ReplayDeadLetters(CommandAction):
    """Apply several dead letters again, by one command; those that are no longer open are left out."""

    verb, label, command = "replay_dead_letters", "Replay dead letters", Command.Action.REPLAY

    def __init__(self, dead_letter_ids: Sequence[int], *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        if len(dead_letter_ids) > MAX_REPLAYED_TOGETHER:
            raise InvalidInputError("dead_letters", f"At most {MAX_REPLAYED_TOGETHER} per command.")
        self.dead_letter_ids = dead_letter_ids

    @property
    def target(self) -> str:
        return f"{len(self.dead_letter_ids)} dead letters"

    def args(self) -> dict[str, object]:
        rows = DeadLetter.objects.filter(pk__in=self.dead_letter_ids, state=DeadLetter.State.OPEN)
        ids = list(rows.order_by("pk").values_list("pk", flat=True))
        if not ids:
            raise NotPossibleError("None of these dead letters is open any more.")
        self.details = {"dead_letters": ids}
        return {"dead_letters": ids}


class DiscardDeadLetter(Action[DeadLetter]):
    """Discard a dead letter for good: if the same input comes again it is counted, and stays discarded."""

    verb, label = "discard_dead_letter", "Discard dead letter"

    def __init__(self, dead_letter_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.dead_letter_id = dead_letter_id

    @property
    def target(self) -> str:
        return _target(self.dead_letter_id)

    def execute(self) -> DeadLetter:
        dead_letter = _open_dead_letter(self.dead_letter_id)
        self.details = {"code": dead_letter.code, "key": dead_letter.key}
        dead_letter.state = DeadLetter.State.DISCARDED
        dead_letter.save(update_fields=["state"])
        return dead_letter
