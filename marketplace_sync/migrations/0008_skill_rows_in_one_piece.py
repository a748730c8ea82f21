"""PostgreSQL: a skill of up to 8 KB stays in one piece, as a feed row does (`0007_fewer_writes`).

Past 2 KB it would be compressed, anew with every change of its code: 32 us to insert a skill of 1.8 KB on the average
instead of 20.
"""

from django.db import migrations


def build(apps, schema_editor):
    _set(schema_editor, "SET (toast_tuple_target = 8160)")


def undo(apps, schema_editor):
    _set(schema_editor, "RESET (toast_tuple_target)")


def _set(schema_editor, how):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"ALTER TABLE marketplace_sync_skill {how}", params=None)


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0007_fewer_writes")]

    operations = [migrations.RunPython(build, undo)]
