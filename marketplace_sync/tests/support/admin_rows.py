"""Rows of every kind for tests of the admin pages, with texts that would run in a page that does not escape them."""

import hashlib
from datetime import timedelta

from django.contrib.auth.models import Permission, User
from django.utils import timezone

from marketplace_sync.models import (
    Agent,
    AgentKey,
    AuditRow,
    Category,
    Command,
    DeadLetter,
    FeedChange,
    HeldRemoval,
    Skill,
    SyncRun,
)

SCRIPT = "<script>alert(1)</script>"
ICON = "javascript:alert(2)"
FOREIGN = "https://tracker.invalid/pixel.png"


def person(name: str, *, staff: bool = True, manages: bool = False, superuser: bool = False) -> User:
    """Create an account. `manages` gives it the permission `manage_sync`."""
    user = User.objects.create_user(name, password="secret", is_staff=staff, is_superuser=superuser)
    if manages:
        user.user_permissions.add(Permission.objects.get(codename="manage_sync"))
    return user


def agent(name: str, *, keys: int = 1) -> Agent:
    """Create a registered agent with that many keys."""
    user = User.objects.create_user(f"agent:{name}")
    for _ in range(keys):
        AgentKey.objects.create(user=user, expiry=None, created_by="user:root")
    return Agent.objects.create(user=user, name=name, created_at=timezone.now(), created_by="user:root")


def held_run(*skill_ids: str) -> SyncRun:
    """Create a sync run with these removals on hold."""
    now = timezone.now()
    run = SyncRun.objects.create(
        reason="poll", state="held", started_at=now, finished_at=now, held_count=len(skill_ids), held_reason="too many"
    )
    HeldRemoval.objects.bulk_create([HeldRemoval(run=run, skill_id=skill_id) for skill_id in skill_ids])
    return run


def dead_letter(number: int, head: bytes = b"{") -> DeadLetter:
    """Create an open dead letter."""
    now = timezone.now()
    return DeadLetter.objects.create(
        source="stream", code="not_json", reason=f"{SCRIPT} {number}", kind="skill_update", key=f"s{number}",
        head=head, size=len(head), digest=hashlib.sha256(str(number).encode()).hexdigest(), first_seen_at=now,
        last_seen_at=now,
    )  # fmt: skip


def fill(count: int) -> None:
    """Create `count` more rows of every model, with all relations between them."""
    now = timezone.now()
    start = Skill.objects.count()
    for number in range(start, start + count):
        category = Category.objects.create(
            name=f"cat {number} {SCRIPT}", description=SCRIPT, icon_url=ICON if number % 2 else FOREIGN
        )
        Skill.objects.create(
            skill_id=f"s{number}", name=f"{SCRIPT} {number}", description=SCRIPT, code=f"</code>{SCRIPT}",
            command="python", tags=["email", SCRIPT], python_packages=[SCRIPT], metadata={"documentation_url": ICON},
            extra={"icon_url": FOREIGN}, category=category, average_rating=4.5, rating_count=3, synced_at=now,
            remote_updated_at=now,
        )  # fmt: skip
        run = held_run(f"s{number}", "gone")
        last = FeedChange.objects.count() + 1
        FeedChange.objects.create(
            seq=last, kind="skill_created", key=f"s{number}", at=now, source="listing", data={"name": SCRIPT},
            run_id=run.pk,
        )  # fmt: skip
        FeedChange.objects.create(
            seq=last + 1, kind="skill_updated", key=f"s{number}", at=now, source="stream", fields=["name"],
            data={"name": SCRIPT},
        )  # fmt: skip
        dead_letter(number, SCRIPT.encode() + b"\x00\xff")
        agent(f"agent-{number}", keys=2)
        Command.objects.create(
            action="reconnect", requested_by=f"user:{SCRIPT}", reason=SCRIPT, requested_at=now,
            expires_at=now + timedelta(minutes=1),
        )  # fmt: skip
        AuditRow.objects.create(
            at=now, actor=f"user:{SCRIPT}", actor_kind="person", verb="reconnect", target=SCRIPT, reason=SCRIPT,
            allowed=True, outcome="performed", required="AUTONOMOUS", actual="AUTONOMOUS", origin="admin 127.0.0.1",
            details={"x": SCRIPT}, command_id=1,
        )  # fmt: skip
