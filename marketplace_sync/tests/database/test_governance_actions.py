"""Management actions: checked, executed, audited and published in one transaction, or refused and audited."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DatabaseError, transaction
from django.utils import timezone

from marketplace_sync.governance import audit
from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actions import (
    ACTIONS,
    ApproveRemoval,
    Disable,
    DisableAgent,
    DiscardDeadLetter,
    DismissRemoval,
    Enable,
    EnableAgent,
    IssueKey,
    Reconnect,
    RegisterAgent,
    ReplayDeadLetter,
    ReplayDeadLetters,
    RevokeKey,
    RotateKey,
    SetMaturity,
    SyncNow,
    may,
)
from marketplace_sync.governance.actors import COMMAND_LINE, Actor, actor_of
from marketplace_sync.governance.errors import (
    HeldChangedError,
    InvalidInputError,
    MaturityRequiredError,
    NoSuchTargetError,
    NotPossibleError,
    PersonRequiredError,
    SuperuserRequiredError,
)
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import Agent, AgentKey, AuditRow, Command, DeadLetter, SyncRun
from marketplace_sync.signals import action_performed

pytestmark = pytest.mark.django_db


def dead_letter(**fields: Any) -> DeadLetter:
    now = timezone.now()
    given = {"source": "stream", "code": "bad_type", "reason": "no", "head": b"{}", "size": 2, "digest": "d", **fields}
    return DeadLetter.objects.create(first_seen_at=now, last_seen_at=now, **given)


def run(state: str) -> SyncRun:
    now = timezone.now()
    return SyncRun.objects.create(reason="poll", state=state, started_at=now, finished_at=now, held_count=3)


# A possible call of each action; a new action has to be added here.
POSSIBLE: dict[type[Action[Any]], Callable[..., Action[Any]]] = {
    Reconnect: Reconnect,
    Disable: Disable,
    Enable: Enable,
    SyncNow: SyncNow,
    ApproveRemoval: lambda **who: ApproveRemoval(run("held").pk, 3, **who),
    DismissRemoval: lambda **who: DismissRemoval(run("held").pk, **who),
    ReplayDeadLetter: lambda **who: ReplayDeadLetter(dead_letter().pk, **who),
    ReplayDeadLetters: lambda **who: ReplayDeadLetters([dead_letter().pk], **who),
    DiscardDeadLetter: lambda **who: DiscardDeadLetter(dead_letter().pk, **who),
    RegisterAgent: lambda **who: RegisterAgent("new", "INTERN", **who),
    SetMaturity: lambda **who: SetMaturity("scout", "INTERN", **who),
    DisableAgent: lambda **who: DisableAgent("scout", **who),
    EnableAgent: lambda **who: EnableAgent("sleeper", **who),
    IssueKey: lambda **who: IssueKey("scout", timedelta(days=1), **who),
    RevokeKey: lambda **who: RevokeKey(AgentKey.objects.get().pk, **who),
    RotateKey: lambda **who: RotateKey(AgentKey.objects.get().pk, **who),
}


def person(name: str, permission: str = "", **flags: Any) -> Actor:
    account = get_user_model().objects.create_user(name, **flags)
    if permission:
        account.user_permissions.add(Permission.objects.get(codename=permission))
    actor = actor_of(account)
    assert actor is not None
    return actor


def agent(maturity: str) -> Actor:
    actor = actor_of(RegisterAgent(maturity.lower(), maturity, actor=COMMAND_LINE).perform().user)
    assert actor is not None
    return actor


ACTORS: dict[str, Callable[[], Actor]] = {
    **{level: (lambda level=level: agent(level)) for level in Maturity},
    "reader": lambda: person("reader"),
    "staff": lambda: person("staff", is_staff=True),
    "manager": lambda: person("manager", "manage_sync", is_staff=True),
    "superuser": lambda: person("root", is_superuser=True, is_staff=True),
    "command line": lambda: COMMAND_LINE,
}


@pytest.fixture
def stage(db: None) -> int:
    """Make two agents and a key; return how many audit rows that took."""
    for name in ("scout", "sleeper"):
        RegisterAgent(name, "STUDENT", actor=COMMAND_LINE).perform()
    IssueKey("scout", actor=COMMAND_LINE).perform()
    DisableAgent("sleeper", actor=COMMAND_LINE).perform()
    return AuditRow.objects.count()


@pytest.fixture
def signals_sent() -> Iterator[list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []

    def receive(**arguments: Any) -> None:
        sent.append(arguments)

    action_performed.connect(receive)
    yield sent
    action_performed.disconnect(receive)


def newest() -> AuditRow:
    row = AuditRow.objects.first()
    assert row is not None
    return row


def test_all_actions_are_covered_here() -> None:
    assert POSSIBLE.keys() == set(ACTIONS)


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.verb)
@pytest.mark.parametrize("who", ACTORS)
def test_each_decision_of_the_policy_writes_one_audit_row(
    stage: int,
    kind: type[Action[Any]],
    who: str,
    django_capture_on_commit_callbacks: Any,
    signals_sent: list[dict[str, Any]],
) -> None:
    actor = ACTORS[who]()
    action = POSSIBLE[kind](actor=actor, reason=" for good ", origin="api 127.0.0.1")
    before = AuditRow.objects.count()
    commands = Command.objects.count()
    maturity_will_do = who in ("AUTONOMOUS", "manager", "superuser", "command line")
    of_a_person = kind is ApproveRemoval and who == "AUTONOMOUS"
    allowed = maturity_will_do and (not kind.superuser_only or who in ("superuser", "command line")) and not of_a_person
    assert may(actor, kind) is allowed
    with django_capture_on_commit_callbacks(execute=True):
        if allowed:
            result = action.perform()
        else:
            missing = SuperuserRequiredError if maturity_will_do else MaturityRequiredError
            with pytest.raises(PersonRequiredError if of_a_person else missing) as refused:
                action.perform()
    assert AuditRow.objects.count() == before + 1
    row = newest()
    assert (row.actor, row.actor_kind, row.verb, row.target) == (actor.ident, actor.kind, kind.verb, action.target)
    assert (row.reason, row.origin, row.actual) == ("for good", "api 127.0.0.1", actor.maturity)
    assert (row.allowed, row.outcome) == ((True, "performed") if allowed else (False, "refused"))
    if allowed:
        assert row.required == ("SUPERUSER" if kind.superuser_only else "AUTONOMOUS")
        assert [(arguments["sender"], arguments["verb"], arguments["audit_id"]) for arguments in signals_sent] == [
            (kind, kind.verb, row.pk)
        ]
        assert row.command_id == (result.pk if isinstance(result, Command) else None)
    else:
        assert row.required == refused.value.required
        assert signals_sent == []
        assert row.command_id is None
        assert Command.objects.count() == commands


def test_an_action_without_an_actor_cannot_be_made() -> None:
    for nobody in (None, "user:root", object()):
        with pytest.raises(TypeError, match="needs an actor"):
            Reconnect(actor=nobody)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Reconnect()  # type: ignore[call-arg]
    assert not AuditRow.objects.exists()


def test_a_command_names_its_author_and_the_reason() -> None:
    run_id = run("held").pk
    command = ApproveRemoval(run_id, 3, actor=COMMAND_LINE, reason="they are gone").perform()
    assert (command.action, command.args, command.state) == ("approve", {"run": run_id}, "pending")
    assert (command.requested_by, command.reason) == ("command line", "they are gone")


def test_an_actor_demoted_or_disabled_since_is_refused(stage: int) -> None:
    actor = agent("AUTONOMOUS")
    SetMaturity("autonomous", "INTERN", actor=COMMAND_LINE).perform()
    with pytest.raises(MaturityRequiredError) as refused:
        Reconnect(actor=actor).perform()
    assert (refused.value.actual, newest().actual) == ("INTERN", "INTERN")
    DisableAgent("autonomous", actor=COMMAND_LINE).perform()
    with pytest.raises(MaturityRequiredError) as refused:
        Reconnect(actor=actor).perform()
    assert (refused.value.actual, newest().actual, newest().outcome) == (None, "", "refused")
    assert not Command.objects.exists()


def test_a_superuser_flag_removed_since_does_not_count(stage: int) -> None:
    actor = person("root", is_superuser=True)
    get_user_model().objects.filter(username="root").update(is_superuser=False)
    with pytest.raises(MaturityRequiredError):
        DisableAgent("scout", actor=actor).perform()
    assert Agent.objects.get(name="scout").enabled


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda: ApproveRemoval(run("done").pk, 3, actor=COMMAND_LINE, reason="x"), NotPossibleError),
        (lambda: ApproveRemoval(run("superseded").pk, 3, actor=COMMAND_LINE, reason="x"), NotPossibleError),
        (lambda: ApproveRemoval(run("approved").pk, 3, actor=COMMAND_LINE, reason="x"), NotPossibleError),
        (lambda: ApproveRemoval(run("held").pk, 4, actor=COMMAND_LINE, reason="x"), HeldChangedError),
        (lambda: ApproveRemoval(10**30, 3, actor=COMMAND_LINE, reason="x"), NoSuchTargetError),
        (lambda: DismissRemoval(run("dismissed").pk, actor=COMMAND_LINE), NotPossibleError),
        (lambda: DismissRemoval(run("approved").pk, actor=COMMAND_LINE), NotPossibleError),
        (lambda: ReplayDeadLetters([dead_letter(state="replayed").pk], actor=COMMAND_LINE), NotPossibleError),
        (lambda: ReplayDeadLetter(dead_letter(state="discarded").pk, actor=COMMAND_LINE), NotPossibleError),
        (lambda: DiscardDeadLetter(dead_letter(state="replayed").pk, actor=COMMAND_LINE), NotPossibleError),
        (lambda: DiscardDeadLetter(-1, actor=COMMAND_LINE), NoSuchTargetError),
        (lambda: RegisterAgent("scout", "INTERN", actor=COMMAND_LINE), NotPossibleError),
        (lambda: SetMaturity("scout", "STUDENT", actor=COMMAND_LINE), NotPossibleError),
        (lambda: SetMaturity("nobody", "STUDENT", actor=COMMAND_LINE), NoSuchTargetError),
        (lambda: SetMaturity("No\0body", "STUDENT", actor=COMMAND_LINE), NoSuchTargetError),
        (lambda: DisableAgent("sleeper", actor=COMMAND_LINE), NotPossibleError),
        (lambda: EnableAgent("scout", actor=COMMAND_LINE), NotPossibleError),
        (lambda: IssueKey("sleeper", actor=COMMAND_LINE), NotPossibleError),
        (lambda: RevokeKey(10**30, actor=COMMAND_LINE), NoSuchTargetError),
    ],
)
def test_an_impossible_action_raises_and_is_audited(stage: int, action: Any, error: type[Exception]) -> None:
    asked = action()
    with pytest.raises(error):
        asked.perform()
    assert AuditRow.objects.count() == stage + 1
    assert (newest().allowed, newest().outcome, newest().verb) == (True, "not_possible", asked.verb)
    assert not Command.objects.exists()


def test_an_actor_without_the_right_does_not_learn_whether_the_target_exists(stage: int) -> None:
    with pytest.raises(MaturityRequiredError):
        ApproveRemoval(10**30, actor=person("reader")).perform()


@pytest.mark.parametrize(
    ("field", "action"),
    [
        ("reason", lambda: Reconnect(actor=COMMAND_LINE, reason="x" * 1001)),
        ("reason", lambda: Reconnect(actor=COMMAND_LINE, reason="NUL \0")),
        ("reason", lambda: Reconnect(actor=COMMAND_LINE, reason="half \ud83d")),
        ("name", lambda: RegisterAgent("..", "INTERN", actor=COMMAND_LINE)),
        ("name", lambda: RegisterAgent("Ada", "INTERN", actor=COMMAND_LINE)),
        ("name", lambda: RegisterAgent("a" * 65, "INTERN", actor=COMMAND_LINE)),
        ("name", lambda: RegisterAgent("a\n", "INTERN", actor=COMMAND_LINE)),
        ("maturity", lambda: RegisterAgent("ada", "GENIUS", actor=COMMAND_LINE)),
        ("maturity", lambda: SetMaturity("ada", "intern", actor=COMMAND_LINE)),
        ("expires_in", lambda: IssueKey("ada", timedelta(0), actor=COMMAND_LINE)),
        ("expires_in", lambda: IssueKey("ada", timedelta(days=99_999), actor=COMMAND_LINE)),
    ],
)
def test_invalid_arguments_are_refused_without_an_audit_row(field: str, action: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        action()
    assert refused.value.field == field
    assert not AuditRow.objects.exists()


def test_a_reason_of_1000_characters_is_stored_whole() -> None:
    Reconnect(actor=COMMAND_LINE, reason="é" * 1000).perform()
    assert newest().reason == "é" * 1000


def test_the_token_in_a_reason_is_not_stored() -> None:
    from marketplace_sync.logs import protect

    protect("0e7c1a52-the-token-9f")
    command = Reconnect(
        actor=COMMAND_LINE, reason="it was 0e7c1a52-the-token-9f", origin="0e7c1a52-the-token-9f"
    ).perform()
    row = newest()
    assert "0e7c1a52" not in f"{command.reason} {row.reason} {row.origin}"


def test_discard_marks_the_dead_letter() -> None:
    row = dead_letter()
    assert DiscardDeadLetter(row.pk, actor=COMMAND_LINE).perform().pk == row.pk
    row.refresh_from_db()
    assert row.state == "discarded"


@pytest.mark.django_db(transaction=True)
def test_an_action_is_undone_if_its_audit_row_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, signals_sent: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(audit, "database_now", lambda: None)
    with pytest.raises(DatabaseError):
        Reconnect(actor=COMMAND_LINE).perform()
    assert not Command.objects.exists()
    assert signals_sent == []


@pytest.mark.django_db(transaction=True)
def test_no_caller_can_roll_back_the_audit_row_of_a_refusal() -> None:
    reader = person("reader")
    with pytest.raises(MaturityRequiredError):
        Reconnect(actor=reader).perform()
    assert newest().outcome == "refused"
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        Reconnect(actor=reader).perform()


@pytest.mark.django_db(transaction=True)
def test_the_signal_is_sent_after_the_commit_and_a_failing_receiver_is_logged(
    signals_sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**arguments: Any) -> None:
        assert not transaction.get_connection().in_atomic_block
        raise ValueError("an error of the receiver")

    action_performed.connect(fail)
    try:
        command = Reconnect(actor=COMMAND_LINE).perform()
    finally:
        action_performed.disconnect(fail)
    assert [arguments["command_id"] for arguments in signals_sent] == [command.pk]
    assert "an error of the receiver" in caplog.text
