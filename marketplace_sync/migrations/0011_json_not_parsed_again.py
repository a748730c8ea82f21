"""SQLite: do not validate JSON that the mirror has written (`models.fields`).

The CHECK constraints are removed from the tables' definitions, as SQLite's manual describes it (lang_altertable.html,
7). That takes no time, however large the tables are. Django would copy the tables, and lose the triggers and indexes
that it did not create.
"""

from django.db import DatabaseError, migrations

from marketplace_sync.models.fields import WrittenJSONField

_WRITTEN = {
    "marketplace_sync_skill": ("python_packages", "npm_packages", "tags", "metadata", "extra"),
    "marketplace_sync_change": ("fields", "data"),
}


def _plain(name):
    return f'"{name}" text NOT NULL'


def _checked(name):
    return f'{_plain(name)} CHECK ((JSON_VALID("{name}") OR "{name}" IS NULL))'


def build(apps, schema_editor):
    _rewrite(schema_editor, _checked, _plain)


def undo(apps, schema_editor):
    _rewrite(schema_editor, _plain, _checked)


def _rewrite(schema_editor, old, new):
    if schema_editor.connection.vendor != "sqlite":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("PRAGMA writable_schema = ON")
        try:
            try:
                cursor.execute("UPDATE sqlite_master SET sql = sql WHERE name = 'marketplace_sync_skill'")
            except DatabaseError:
                return  # a SQLite that refuses this (built as DEFENSIVE) continues to validate, which is slower
            for table, names in _WRITTEN.items():
                cursor.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = %s", (table,))
                (sql,) = cursor.fetchone()
                for name in names:
                    sql = sql.replace(f"{old(name)},", f"{new(name)},")
                cursor.execute("UPDATE sqlite_master SET sql = %s WHERE type = 'table' AND name = %s", (sql, table))
            # Makes every connection read the tables' definitions again.
            cursor.execute("PRAGMA schema_version")
            (version,) = cursor.fetchone()
            cursor.execute(f"PRAGMA schema_version = {version + 1}")
        finally:
            cursor.execute("PRAGMA writable_schema = OFF")


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0010_tags_beside_words")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, undo)],
            state_operations=[
                *(
                    migrations.AlterField("skill", name, WrittenJSONField(blank=True, default=list))
                    for name in ("python_packages", "npm_packages", "tags")
                ),
                *(
                    migrations.AlterField("skill", name, WrittenJSONField(blank=True, default=dict))
                    for name in ("metadata", "extra")
                ),
                migrations.AlterField("feedchange", "fields", WrittenJSONField(default=list)),
                migrations.AlterField("feedchange", "data", WrittenJSONField(default=dict)),
            ],
        )
    ]
