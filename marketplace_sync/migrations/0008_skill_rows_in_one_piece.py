"""PostgreSQL: do not compress a skill of up to 8 KB, like a feed row (`0007_fewer_writes`).

By default a skill above 2 KB is compressed, again with each change of its code. An insert of skills of 1.8 KB on average
took 32 µs per skill instead of 20.
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
