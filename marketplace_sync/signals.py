"""Hints for whoever shows or does something as it happens; the facts are in the database (law 12).

What a listener raises is logged and reaches nobody. A process that is killed sends nothing more: whoever must not
miss a change follows the feed (`docs/feed.md`) and takes these as a reason to look. `docs/embedding.md` shows how.
"""

from django.dispatch import Signal

# A management action was done and committed. Arguments: `verb`, `target`, `audit_id`, `command_id` (None: it was
# done directly). The sender is the action's class. Sent after the commit, in the thread that performed it.
action_performed = Signal()

# The three below are sent by the daemon (`runsync`, with `--once` too), after the commit, in one thread of its own:
# a listener may use the database and take its time. It keeps nobody waiting but the next listener.

# Changes stand in the feed. Arguments: `first_seq`, `last_seq`. One a commit, or one for several where the listeners
# take longer than the commits do; the ranges follow one another without a hole. The sender is `models.FeedChange`.
changes_committed = Signal()

# A pass holds removals back, and a person has to look. Arguments: `run_id`, `count`, `reason`. The sender is
# `models.SyncRun`.
removals_held = Signal()

# What the status says has changed. Arguments: `state`, `before` ("" at the daemon's start), both of
# `models.WebSocketState.State`, and `reason` (""). The sender is `models.WebSocketState`.
connection_state_changed = Signal()
