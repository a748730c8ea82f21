"""The tables of the mirror, their constraints and their queries."""

from marketplace_sync.models.agents import Agent, AgentKey
from marketplace_sync.models.audit import AuditRow
from marketplace_sync.models.catalogue import Category, Skill, Tombstone
from marketplace_sync.models.commands import Command
from marketplace_sync.models.dead_letters import DeadLetter
from marketplace_sync.models.feed import FeedChange
from marketplace_sync.models.figures import MinuteFigures
from marketplace_sync.models.lease import LeaseRow, Standby
from marketplace_sync.models.metrics import DaemonMetrics, FeedServer
from marketplace_sync.models.runs import DismissedRemoval, HeldRemoval, SyncRun
from marketplace_sync.models.state import WebSocketState

__all__ = [
    "Agent",
    "AgentKey",
    "AuditRow",
    "Category",
    "Command",
    "DaemonMetrics",
    "DeadLetter",
    "DismissedRemoval",
    "FeedChange",
    "FeedServer",
    "HeldRemoval",
    "LeaseRow",
    "MinuteFigures",
    "Skill",
    "Standby",
    "SyncRun",
    "Tombstone",
    "WebSocketState",
]
