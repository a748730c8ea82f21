"""Old audit rows go into a file, and only then out of the database.

The rows are what the database never changes, so they are exported outside the transaction that deletes them: a
long export keeps no writer waiting. Only what is whole, on disk and counted is deleted, through the gate of
`models.audit`, and that it was is an audit row itself.
"""

import gzip
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection

from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import AuditRow
from marketplace_sync.models.audit import CLOSE_GATE, OPEN_GATE

_CHUNK = 2000


def last_archivable(older_than: timedelta) -> int:
    """The last id of the rows, from the first on, that are all older than that; 0 where there are none."""
    before = database_now() - older_than
    kept = AuditRow.objects.filter(at__gte=before).order_by("pk").values_list("pk", flat=True).first()
    old = AuditRow.objects.filter(at__lt=before)
    if kept is not None:
        old = old.filter(pk__lt=kept)
    return old.order_by("-pk").values_list("pk", flat=True).first() or 0


def export(up_to: int, path: Path) -> int:
    """Write the rows up to that id, oldest first, one JSON object a line, gzipped; how many.

    The file is there whole and on disk, or not at all. Raises `FileExistsError` rather than overwrite, `OSError`.
    """
    if path.exists():
        raise FileExistsError(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb") as packed:
                count = 0
                rows = AuditRow.objects.filter(pk__lte=up_to).order_by("pk").values()
                for row in rows.iterator(chunk_size=_CHUNK):
                    # The encoder would cut the time to milliseconds.
                    whole = {**row, "at": row["at"].isoformat()}
                    packed.write(json.dumps(whole, cls=DjangoJSONEncoder, ensure_ascii=False).encode() + b"\n")
                    count += 1
            raw.flush()
            os.fsync(raw.fileno())
        os.link(partial, path)  # unlike a rename, this refuses a name that is taken
    finally:
        partial.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return count


class ArchiveAudit(Action[int]):
    """Delete the rows up to `up_to`, which are in `path` by now; `exported` of them, or nothing is deleted."""

    verb, label = "archive_audit", "Archive the audit"
    superuser_only = True

    def __init__(
        self, up_to: int, exported: int, path: Path, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.up_to = up_to
        self.exported = exported
        self.details: dict[str, Any] = {"up_to": up_to, "rows": exported, "file": str(path)}

    @property
    def target(self) -> str:
        return "audit"

    def execute(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute(OPEN_GATE, [self.up_to])
            deleted = AuditRow.objects.filter(pk__lte=self.up_to).delete()[0]
            cursor.execute(CLOSE_GATE)
        if deleted != self.exported:
            raise NotPossibleError(f"{self.exported} rows were exported and {deleted} would go: nothing was deleted.")
        return deleted
