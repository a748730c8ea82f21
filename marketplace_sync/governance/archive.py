"""Export old audit rows to a file, then delete them from the database.

The database never changes an audit row, so the export runs outside the transaction that deletes: no writer waits for
it. Only rows that are complete on disk and counted are deleted, through the gate of `models.audit`. The deletion
leaves an audit row itself.
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
    """Return the id up to which every row is older than that; 0 when the first row is younger or there is none."""
    before = database_now() - older_than
    kept = AuditRow.objects.filter(at__gte=before).order_by("pk").values_list("pk", flat=True).first()
    old = AuditRow.objects.filter(at__lt=before)
    if kept is not None:
        old = old.filter(pk__lt=kept)
    return old.order_by("-pk").values_list("pk", flat=True).first() or 0


def export(up_to: int, path: Path) -> int:
    """Write the rows up to that id, oldest first, one JSON object per line, gzipped; return how many.

    Either the complete file is on disk afterwards, or none. Raises `OSError`, and `FileExistsError` if the file exists.
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
                    # The encoder alone would cut the time to milliseconds.
                    whole = {**row, "at": row["at"].isoformat()}
                    packed.write(json.dumps(whole, cls=DjangoJSONEncoder, ensure_ascii=False).encode() + b"\n")
                    count += 1
            raw.flush()
            os.fsync(raw.fileno())
        os.link(partial, path)  # unlike a rename, this fails if the name is taken
    finally:
        partial.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return count


class ArchiveAudit(Action[int]):
    """Delete the rows up to the id `up_to`, which were exported to `path`; nothing if they are not `exported` rows."""

    verb, label = "archive_audit", "Archive audit rows"
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
            raise NotPossibleError(
                f"{self.exported} rows were exported, but {deleted} would go. Nothing was deleted; export again."
            )
        return deleted
