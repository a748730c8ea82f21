"""Agents and their keys.

Keys are django-rest-knox's: 256 random bits, of which only the SHA-512 is stored; several per agent, with an expiry.
Knox's own `AuthToken` does not suffice: revoking one deletes it, knox deletes expired ones in passing, and no column
records who issued one or when it was last used. So `AgentKey` adds these columns to knox's abstract model, and an id of
its own, since a digest does not belong in a URL. A key is found by its unique digest: one index lookup for any key, and
since the digest is a hash, the time of the lookup reveals nothing.
"""

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q
from knox.models import AbstractAuthToken


class Agent(models.Model):
    """A program that acts under a name of its own. It is never deleted, only disabled: audit rows name it.

    Django's permissions and knox refer to its user (`agent:NAME`, no password), which cannot be deleted either.
    """

    class Maturity(models.TextChoices):
        STUDENT = "STUDENT", "STUDENT"
        INTERN = "INTERN", "INTERN"
        SUPERVISED = "SUPERVISED", "SUPERVISED"
        AUTONOMOUS = "AUTONOMOUS", "AUTONOMOUS"

    # Not "agent": a project's own user model may have a field of that name.
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="mirror_agent")
    name = models.CharField(max_length=64, unique=True)
    maturity = models.CharField(max_length=10, choices=Maturity.choices, default=Maturity.STUDENT)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=255)

    class Meta:
        ordering = ("name",)
        default_permissions = ("view",)
        permissions = (("manage_sync", "Can manage the mirror (staff with this act as AUTONOMOUS)"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(maturity__in=("STUDENT", "INTERN", "SUPERVISED", "AUTONOMOUS")), name="agent_maturity_known"
            ),
        )

    def __str__(self) -> str:
        return self.name


class AgentKey(AbstractAuthToken):
    """One key of an agent. Pages show it by `token_key`, its first 15 characters.

    `expiry` `None`: it does not expire. `last_used_at` is at most a minute late. `last_refused_at` (used although
    revoked, expired, or of a disabled agent) is at most an hour late.
    """

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=128, unique=True, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="auth_token_set")
    created_by = models.CharField(max_length=255)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_refused_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    revoked_by = models.CharField(max_length=255, blank=True, default="", editable=False)

    class Meta:
        ordering = ("-id",)
        verbose_name = "key"
        default_permissions = ("view",)
        constraints = (
            models.CheckConstraint(
                condition=Q(revoked_at__isnull=True, revoked_by="") | (Q(revoked_at__isnull=False) & ~Q(revoked_by="")),
                name="key_revoked_by_someone",
            ),
        )

    def __str__(self) -> str:
        return f"{self.token_key}…"

    @property
    def agent(self) -> Agent:
        """The agent that the key belongs to."""
        agent: Agent = self.user.mirror_agent
        return agent

    def state(self, now: datetime) -> str:
        """Return `active`, `expired` or `revoked` at `now`, whether or not the agent is enabled."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expiry is not None and self.expiry <= now else "active"
