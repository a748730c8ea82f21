"""Management actions: checked, done, audited and published in one transaction, or refused and audited."""

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


# One that can be done, for each action; a new one has to be added here.
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
    """Two agents and a key; the number of audit rows that making them took."""
    for name in ("scout", "sleeper"):
        RegisterAgent(name, "STUDENT", actor=COMMAND_LINE).perform()
    IssueKey("scout", actor=COMMAND_LINE).perform()
    DisableAgent("sleeper", actor=COMMAND_LINE).perform()
    return AuditRow.objects.count()


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []

    def hear(**news: Any) -> None:
        told.append(news)

    action_performed.connect(hear)
    yield told
    action_performed.disconnect(hear)


def newest() -> AuditRow:
    row = AuditRow.objects.first()
    assert row is not None
    return row


def test_every_action_is_tried() -> None:
    assert POSSIBLE.keys() == set(ACTIONS)


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.verb)
@pytest.mark.parametrize("who", ACTORS)
def test_the_policy_decides_and_each_decision_is_one_audit_row(
    stage: int, kind: type[Action[Any]], who: str, django_capture_on_commit_callbacks: Any, heard: list[dict[str, Any]]
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
        assert [(news["sender"], news["verb"], news["audit_id"]) for news in heard] == [(kind, kind.verb, row.pk)]
        assert row.command_id == (result.pk if isinstance(result, Command) else None)
    else:
        assert row.required == refused.value.required
        assert heard == []
        assert row.command_id is None
        assert Command.objects.count() == commands


def test_without_an_actor_nothing_can_even_be_asked_for() -> None:
    for nobody in (None, "user:root", object()):
        with pytest.raises(TypeError, match="needs an actor"):
            Reconnect(actor=nobody)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Reconnect()  # type: ignore[call-arg]
    assert not AuditRow.objects.exists()


def test_an_asked_for_command_says_who_asked_and_why() -> None:
    run_id = run("held").pk
    command = ApproveRemoval(run_id, 3, actor=COMMAND_LINE, reason="they are gone").perform()
    assert (command.action, command.args, command.state) == ("approve", {"run": run_id}, "pending")
    assert (command.requested_by, command.reason) == ("command line", "they are gone")


def test_an_actor_that_was_demoted_or_turned_away_since_is_refused(stage: int) -> None:
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


def test_a_superusers_flag_that_was_taken_since_counts_no_more(stage: int) -> None:
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
def test_what_can_not_be_done_is_said_and_audited(stage: int, action: Any, error: type[Exception]) -> None:
    asked = action()
    with pytest.raises(error):
        asked.perform()
    assert AuditRow.objects.count() == stage + 1
    assert (newest().allowed, newest().outcome, newest().verb) == (True, "not_possible", asked.verb)
    assert not Command.objects.exists()


def test_who_may_not_does_not_learn_whether_there_is_such_a_thing(stage: int) -> None:
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
def test_arguments_that_can_not_be_are_refused_before_any_decision(field: str, action: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        action()
    assert refused.value.field == field
    assert not AuditRow.objects.exists()


def test_a_reason_of_a_thousand_characters_is_kept_whole() -> None:
    Reconnect(actor=COMMAND_LINE, reason="é" * 1000).perform()
    assert newest().reason == "é" * 1000


def test_the_marketplaces_token_in_a_reason_reaches_no_row() -> None:
    from marketplace_sync.logs import protect

    protect("0e7c1a52-the-token-9f")
    command = Reconnect(
        actor=COMMAND_LINE, reason="it said 0e7c1a52-the-token-9f", origin="0e7c1a52-the-token-9f"
    ).perform()
    row = newest()
    assert "0e7c1a52" not in f"{command.reason} {row.reason} {row.origin}"


def test_a_discarded_dead_letter_is_put_aside() -> None:
    letter = dead_letter()
    assert DiscardDeadLetter(letter.pk, actor=COMMAND_LINE).perform().pk == letter.pk
    letter.refresh_from_db()
    assert letter.state == "discarded"


@pytest.mark.django_db(transaction=True)
def test_an_action_whose_audit_can_not_be_written_is_not_done(
    monkeypatch: pytest.MonkeyPatch, heard: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(audit, "database_now", lambda: None)
    with pytest.raises(DatabaseError):
        Reconnect(actor=COMMAND_LINE).perform()
    assert not Command.objects.exists()
    assert heard == []


@pytest.mark.django_db(transaction=True)
def test_a_refusals_row_outlives_its_exception_and_no_caller_can_roll_it_back() -> None:
    reader = person("reader")
    with pytest.raises(MaturityRequiredError):
        Reconnect(actor=reader).perform()
    assert newest().outcome == "refused"
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        Reconnect(actor=reader).perform()


@pytest.mark.django_db(transaction=True)
def test_it_is_told_after_the_commit_and_a_listener_that_fails_harms_nobody(
    heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**news: Any) -> None:
        assert not transaction.get_connection().in_atomic_block
        raise ValueError("a listener's own trouble")

    action_performed.connect(fail)
    try:
        command = Reconnect(actor=COMMAND_LINE).perform()
    finally:
        action_performed.disconnect(fail)
    assert [news["command_id"] for news in heard] == [command.pk]
    assert "a listener's own trouble" in caplog.text
