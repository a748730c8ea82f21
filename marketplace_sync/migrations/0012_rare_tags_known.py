"""PostgreSQL: keep larger statistics of the tags, so that it estimates well how many skills have a tag.

By default the statistics contain about a hundred lists of tags. After one ANALYZE in eleven they contain by chance a tag
that one skill in a thousand has. PostgreSQL then assumes one skill in a hundred, and scans half of the skills by name to
fill a page of 50: 230 ms among 100,000 skills instead of 5. With a thousand lists it distinguishes one in a thousand.
"""

from django.db import migrations

_TAGS = "ALTER TABLE marketplace_sync_skill_words ALTER COLUMN tags SET STATISTICS"


def build(apps, schema_editor):
    _keep(schema_editor, 1000)


def undo(apps, schema_editor):
    _keep(schema_editor, -1)


def _keep(schema_editor, lists):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"{_TAGS} {lists}", params=None)
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM marketplace_sync_skill_words)")
            # After an ANALYZE of the empty table PostgreSQL would assume that the table is still empty.
            if cursor.fetchone()[0]:
                cursor.execute("ANALYZE marketplace_sync_skill_words")


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0011_json_not_parsed_again")]

    operations = [migrations.RunPython(build, undo)]
