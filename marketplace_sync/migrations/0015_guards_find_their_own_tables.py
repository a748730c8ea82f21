"""PostgreSQL: let the functions of triggers find tables in the schema of the app only.

By default a temporary table hides other tables of its name. So a role that could create one named
`marketplace_sync_auditgate` could open the gate of the audit, and one named `marketplace_sync_skill_words` prevented
updates of the search words. The audit's trigger now also fires while `session_replication_role` is `replica`, which
disables ordinary triggers.
"""

from importlib import import_module

from django.db import migrations

audit = import_module("marketplace_sync.migrations.0002_agents_and_audit")

# The schema of the guarded table, which a restore may have renamed. `format` quotes it.
_GUARD = """
    CREATE OR REPLACE FUNCTION marketplace_sync_audit_guard() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        allowed bigint;
    BEGIN
        EXECUTE format('SELECT up_to FROM %I.marketplace_sync_auditgate WHERE id = 1', TG_TABLE_SCHEMA) INTO allowed;
        IF TG_OP = 'DELETE' THEN
            IF OLD.id <= allowed THEN RETURN OLD; END IF;
        ELSIF TG_OP = 'TRUNCATE' AND allowed = 9223372036854775807 THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'the audit is append-only: no row may be changed or deleted (%)', TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END $$
"""
_TRIGGERS = ("marketplace_sync_audit_rows", "marketplace_sync_audit_truncate")
_WORDS = ("marketplace_sync_keep_words()", "marketplace_sync_keep_new_words()")


def build(apps, schema_editor):
    _run(schema_editor, _GUARD)
    for name in _TRIGGERS:
        _run(schema_editor, f"ALTER TABLE marketplace_sync_auditrow ENABLE ALWAYS TRIGGER {name}")
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT quote_ident(current_schema())")
            schema = cursor.fetchone()[0]
        for function in _WORDS:
            # pg_temp last: unless it is named, it comes first.
            _run(schema_editor, f"ALTER FUNCTION {function} SET search_path = pg_catalog, {schema}, pg_temp")


def undo(apps, schema_editor):
    for function in _WORDS:
        _run(schema_editor, f"ALTER FUNCTION {function} RESET search_path")
    for name in _TRIGGERS:
        _run(schema_editor, f"ALTER TABLE marketplace_sync_auditrow ENABLE TRIGGER {name}")
    before = audit.TRIGGERS["postgresql"][0]
    _run(schema_editor, before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))


def _run(schema_editor, statement):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0014_runs_by_row")]

    operations = [migrations.RunPython(build, undo)]
