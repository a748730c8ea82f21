"""The audit cannot be changed, and only rows that the archive has exported to a file can be deleted."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import TransactionTestCase
from django.utils import timezone

from marketplace_sync.governance.actions import Reconnect
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.archive import ArchiveAudit, last_archivable
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.models import AuditRow
from marketplace_sync.models.audit import OPEN_GATE
from marketplace_sync.tests.support.api_actors import put

pytestmark = pytest.mark.django_db


def row(days: float = 0.0, **fields: Any) -> AuditRow:
    """Make an audit row of that many days ago."""
    given = {"actor": "user:ada", "actor_kind": "person", "verb": "sync", "allowed": True, "outcome": "performed"}
    return AuditRow.objects.create(at=timezone.now() - timedelta(days=days), **{**given, **fields})


def refused(statement: str, *args: Any) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, args)


def test_the_database_refuses_to_change_delete_or_replace_a_row() -> None:
    kept = row(reason="as it was")
    refused("UPDATE marketplace_sync_auditrow SET reason = 'other'")
    refused("DELETE FROM marketplace_sync_auditrow")
    refused("DELETE FROM marketplace_sync_auditrow WHERE id = %s", kept.pk)
    columns = "actor, actor_kind, verb, target, reason, allowed, outcome, required, actual, origin, details"
    upsert = {
        "sqlite": f"INSERT OR REPLACE INTO marketplace_sync_auditrow (id, at, {columns}) "
        f"SELECT id, at, {columns} FROM marketplace_sync_auditrow",
        "postgresql": f"INSERT INTO marketplace_sync_auditrow (id, at, {columns}) "
        f"SELECT id, at, {columns} FROM marketplace_sync_auditrow ON CONFLICT (id) DO UPDATE SET reason = 'other'",
    }
    refused(upsert[connection.vendor])
    kept.reason = "other"
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        kept.save()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        kept.delete()
    assert AuditRow.objects.get().reason == "as it was"


def test_postgresql_refuses_to_truncate_the_audit(postgres: None) -> None:
    refused("TRUNCATE marketplace_sync_auditrow")
    refused("TRUNCATE marketplace_sync_auditrow CASCADE")


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_temporary_table_with_the_name_of_the_gate_does_not_open_it() -> None:
    kept = row()
    run(
        "CREATE TEMPORARY TABLE marketplace_sync_auditgate (id smallint, up_to bigint)",
        f"INSERT INTO marketplace_sync_auditgate VALUES (1, {2**63 - 1})",
    )
    if connection.vendor == "postgresql":
        refused("DELETE FROM marketplace_sync_auditrow")
        refused("TRUNCATE marketplace_sync_auditrow")
        run("SELECT set_config('search_path', 'pg_temp, ' || current_schema(), true)")
    refused("DELETE FROM marketplace_sync_auditrow")
    run("DROP TABLE marketplace_sync_auditgate")  # the temporary one, which comes first
    assert AuditRow.objects.get() == kept and gate() == 0


def test_a_session_in_replica_role_is_refused(postgres: None) -> None:
    row()
    run("SET LOCAL session_replication_role = replica")
    refused("DELETE FROM marketplace_sync_auditrow")
    refused("UPDATE marketplace_sync_auditrow SET reason = 'other'")
    refused("TRUNCATE marketplace_sync_auditrow")


def test_a_temporary_table_does_not_stop_the_search_index(postgres: None) -> None:
    run("CREATE TEMPORARY TABLE marketplace_sync_skill_words (LIKE marketplace_sync_skill_words INCLUDING ALL)")
    skill = put("s1", name="Archive Email")
    skill.name = "Convert Feed"
    skill.save()
    run("DROP TABLE marketplace_sync_skill_words")
    with connection.cursor() as cursor:
        cursor.execute("SELECT words::text FROM marketplace_sync_skill_words")
        assert "convert" in cursor.fetchone()[0]


def test_every_database_function_sets_its_search_path(postgres: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT proname FROM pg_proc WHERE proname LIKE 'marketplace\\_sync%%' AND prorettype = 'trigger'::regtype "
            "AND NOT EXISTS (SELECT FROM unnest(proconfig) AS one WHERE one LIKE 'search_path=%%pg_temp')",
            [],
        )
        assert cursor.fetchall() == []


def test_an_open_gate_allows_neither_updates_nor_deletion_of_later_rows() -> None:
    old, new = row(), row()
    with connection.cursor() as cursor:
        cursor.execute(OPEN_GATE, [old.pk])
    refused("UPDATE marketplace_sync_auditrow SET reason = 'other' WHERE id = %s", old.pk)
    refused("DELETE FROM marketplace_sync_auditrow WHERE id = %s", new.pk)
    AuditRow.objects.filter(pk=old.pk).delete()
    assert AuditRow.objects.get() == new


def test_a_refused_row_cannot_be_marked_as_allowed() -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        row(allowed=True, outcome="refused")
    with pytest.raises(DatabaseError), transaction.atomic():
        row(allowed=False, outcome="performed")


@pytest.mark.django_db(transaction=True)
def test_a_flush_with_the_gate_closed_is_refused_and_deletes_nothing() -> None:
    kept = row()
    with pytest.raises(CommandError) as error:
        call_command("flush", interactive=False, verbosity=0)
    assert "append-only" in str(error.value.__cause__)
    assert AuditRow.objects.get() == kept
    TransactionTestCase()._fixture_teardown()  # as `conftest.py` has it, with the gate opened
    assert not AuditRow.objects.exists()
    assert gate() == 0


def gate() -> int:
    """Return the id up to which rows may be deleted."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT up_to FROM marketplace_sync_auditgate")
        ((up_to,),) = cursor.fetchall()
        return int(up_to)


def archived(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def test_archive_exports_old_rows_and_then_deletes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = row(400, reason="é, and\nmore", details={"a": [1]}), row(366)
    young = row(364)
    file = tmp_path / "audit.jsonl.gz"
    call_command("archiveaudit", to=file)
    assert "2 audit rows" in capsys.readouterr().out
    found = archived(file)
    assert [line["id"] for line in found] == [first.pk, second.pk]
    assert found[0]["reason"] == "é, and\nmore" and found[0]["details"] == {"a": [1]}
    assert datetime.fromisoformat(found[0]["at"]) == first.at  # to the microsecond
    assert found[0].keys() == {field.attname for field in AuditRow._meta.concrete_fields}
    newest, oldest = AuditRow.objects.all()
    assert oldest == young
    assert (newest.verb, newest.actor, newest.details) == (
        "archive_audit", "command line", {"up_to": second.pk, "rows": 2, "file": str(file)},
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl.gz"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert gate() == 0


def test_archive_leaves_an_old_row_behind_a_younger_one() -> None:
    first = row(10)
    row(1)
    row(10)  # the clock had been set back
    assert last_archivable(timedelta(days=5)) == first.pk


def test_archive_overwrites_no_file_and_deletes_nothing_then(tmp_path: Path) -> None:
    row(10)
    file = tmp_path / "audit.jsonl.gz"
    file.write_text("precious")
    with pytest.raises(CommandError, match="already"):
        call_command("archiveaudit", to=file, older_than_days=5)
    assert file.read_text() == "precious"
    assert AuditRow.objects.count() == 1


def test_archive_deletes_nothing_if_the_file_cannot_be_written(tmp_path: Path) -> None:
    row(10)
    with pytest.raises(CommandError, match="nothing was deleted"):
        call_command("archiveaudit", to=tmp_path / "none" / "audit.jsonl.gz", older_than_days=5)
    assert AuditRow.objects.count() == 1


def test_a_failed_export_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row(10)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CommandError, match="No space left"):
        call_command("archiveaudit", to=tmp_path / "audit.jsonl.gz", older_than_days=5)
    assert list(tmp_path.iterdir()) == []
    assert AuditRow.objects.count() == 1


def test_archive_deletes_nothing_if_the_counts_differ(tmp_path: Path) -> None:
    last = [row(10) for _ in range(3)][-1]
    with pytest.raises(NotPossibleError):
        ArchiveAudit(last.pk, 2, tmp_path / "x", actor=COMMAND_LINE).perform()
    assert AuditRow.objects.filter(verb="sync").count() == 3
    assert gate() == 0


def test_archive_without_old_rows_writes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reconnect(actor=COMMAND_LINE).perform()
    call_command("archiveaudit", to=tmp_path / "audit.jsonl.gz")
    assert "No audit row is old enough" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [-1.0, float("nan"), float("inf"), 1e9])
def test_archive_refuses_an_invalid_age(days: float, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="older-than-days"):
        call_command("archiveaudit", to=tmp_path / "x", older_than_days=days)
