"""Hints for whoever shows things as they happen; the facts are in the database (law 12)."""

from django.dispatch import Signal

# A management action was done and committed. Arguments: `verb`, `target`, `audit_id`, `command_id` (None: it was
# done directly). The sender is the action's class. Sent after the commit, in the thread that performed it; what a
# listener raises is logged and reaches nobody.
action_performed = Signal()
