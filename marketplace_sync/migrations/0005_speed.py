"""Writes that leave alone what they don't change.

- The trigger that keeps the search words watches the columns that have words in them: SQLite then runs nothing of it
  for an update that does not name one. (An update of a skill: 54 us with all columns, 21 us so.)
- FTS5 keeps no table of how long each text is (`columnsize=0`), which only ranking would read, and no index of
  prefixes of three letters: 13 ms for a search instead of 1 (100,000 skills), and an eighth off each new skill.
- The feed is never looked up by `at`: it is forgotten from its front, by number.
- Django gives a unique text column a second index on PostgreSQL, for LIKE 'x%'. Nobody asks that of these.
"""

from importlib import import_module

from django.db import migrations, models

search = import_module("marketplace_sync.migrations.0003_search")

_LIKE = """
    DO $$
    DECLARE unused text;
    BEGIN
        FOR unused IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
            AND tablename IN ('marketplace_sync_skill', 'marketplace_sync_tombstone', 'marketplace_sync_category')
            AND indexname LIKE '%_like'
        LOOP
            EXECUTE format('DROP INDEX %I', unused);
        END LOOP;
    END $$
"""
_WATCHED = (
    "DROP TRIGGER skill_words_changed ON marketplace_sync_skill",
    "CREATE TRIGGER skill_words_changed AFTER UPDATE OF name, description, tags ON marketplace_sync_skill FOR EACH ROW "
    "WHEN (old.name <> new.name OR old.description <> new.description OR old.tags <> new.tags) "
    "EXECUTE FUNCTION marketplace_sync_keep_words()",
)


def build(apps, schema_editor):
    if schema_editor.connection.vendor == "sqlite":
        search.build_sqlite(schema_editor)
    else:
        for statement in (*_WATCHED, _LIKE):
            schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0004_minute_figures")]

    operations = [
        migrations.AlterField(model_name="feedchange", name="at", field=models.DateTimeField()),
        migrations.RunPython(build, migrations.RunPython.noop),
    ]
