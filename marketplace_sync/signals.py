"""Signals: hints that something happened; the facts are in the database (law 12).

An exception of a receiver is logged and goes no further. A process that is killed sends no more signals. A receiver
that must not miss a change reads the change feed (`docs/feed.md`), and uses these signals as a reason to look.
`docs/embedding.md` shows how.
"""

from django.dispatch import Signal

# A management action was executed and committed. Arguments: `verb`, `target`, `audit_id`, `command_id` (None: no daemon
# is needed). The sender is the action's class. Sent after the commit, in the thread that performed it.
action_performed = Signal()

# The daemon (`runsync`, also with `--once`) sends the following three after the commit, in one thread of their own: a
# receiver may use the database and take its time. Only the next receiver waits for it.

# Changes were added to the feed. Arguments: `first_seq`, `last_seq`. One signal per commit, or one for several commits
# if the receivers are slower; the ranges follow one another without a gap. The sender is `models.FeedChange`.
changes_committed = Signal()

# A full sync put removals on hold, and a person has to review them. Arguments: `run_id`, `count`, `reason`. The sender
# is `models.SyncRun`.
removals_held = Signal()

# The connection's state has changed. Arguments: `state`, `before` ("" at the daemon's start), both of
# `models.WebSocketState.State`, and `reason` ("": none). The sender is `models.WebSocketState`.
connection_state_changed = Signal()
