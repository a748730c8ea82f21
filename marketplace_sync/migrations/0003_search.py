"""Create the indexes for the search, the tag filter and the orderings.

PostgreSQL: a table with each skill's words, as a tsvector with a GIN index, and a GIN index of the tags. (With an index
of the expression alone, a search that most skills match took 8 s, because PostgreSQL computed the words of each skill
again.) SQLite: an FTS5 index of the words, and a table of the tags. Triggers update them for every writer of a skill.

The indexes of the orderings are created here and not in `Meta`, because they differ by database. Skills without a
rating or a date come last: PostgreSQL needs NULLS LAST for that, which SQLite refuses in an index. A page far back is
found in the index alone only if the index contains the primary key: on PostgreSQL it must be named (324 ms without), on
SQLite every index contains it.

On SQLite Django changes a table by creating it again, which drops its triggers. So a later migration that alters
`Skill` must call `build_sqlite` again, and then `build` of `0009_smaller_orderings`. `test_api_catalogue.py` fails if
one does not.
"""

from django.db import migrations, models

# ASCII punctuation. PostgreSQL's parser would read `a/b` as a file and `a.b` as a host, one word each.
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

# PostgreSQL refuses a document with more than 1 MiB of words, and with it the skill. So the first 50,000 characters of
# description and of tags count. No foreign key, since it would forbid the TRUNCATE by which Django empties tables.
POSTGRES = (
    "CREATE TABLE marketplace_sync_skill_words (skill bigint PRIMARY KEY, words tsvector NOT NULL)",
    """
    CREATE FUNCTION marketplace_sync_words_of(name text, description text, tags jsonb) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT strip(to_tsvector('pg_catalog.simple', translate(
            name || ' ' || left(description, 50000) || ' ' || left(tags::text, 50000), %(old)s, %(new)s)))
    $$
    """
    % {"old": "'" + PUNCTUATION.replace("'", "''") + "'", "new": "'" + " " * len(PUNCTUATION) + "'"},
    """
    CREATE FUNCTION marketplace_sync_keep_words() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            TRUNCATE marketplace_sync_skill_words;
        ELSIF TG_OP = 'DELETE' THEN
            DELETE FROM marketplace_sync_skill_words WHERE skill = old.id;
        ELSE
            INSERT INTO marketplace_sync_skill_words AS held (skill, words)
            VALUES (new.id, marketplace_sync_words_of(new.name, new.description, new.tags))
            ON CONFLICT (skill) DO UPDATE SET words = excluded.words;
        END IF;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER skill_words_kept AFTER INSERT OR DELETE ON marketplace_sync_skill "
    "FOR EACH ROW EXECUTE FUNCTION marketplace_sync_keep_words()",
    # Most updates leave the words alone (a rating, a version); those pay nothing.
    "CREATE TRIGGER skill_words_changed AFTER UPDATE ON marketplace_sync_skill FOR EACH ROW "
    "WHEN (old.name <> new.name OR old.description <> new.description OR old.tags <> new.tags) "
    "EXECUTE FUNCTION marketplace_sync_keep_words()",
    "CREATE TRIGGER skill_words_emptied AFTER TRUNCATE ON marketplace_sync_skill "
    "EXECUTE FUNCTION marketplace_sync_keep_words()",
    "INSERT INTO marketplace_sync_skill_words (skill, words) "
    "SELECT id, marketplace_sync_words_of(name, description, tags) FROM marketplace_sync_skill",
    "CREATE INDEX skill_words ON marketplace_sync_skill_words USING gin (words)",
    "CREATE INDEX skill_tags ON marketplace_sync_skill USING gin (tags jsonb_path_ops)",
    *(
        f"CREATE INDEX {name} ON marketplace_sync_skill ({column} {last}, skill_id) INCLUDE (id)"
        for name, column, last in (
            ("skill_by_name", "name", ""),
            ("skill_by_rating", "average_rating", "DESC NULLS LAST"),
            ("skill_by_update", "remote_updated_at", "DESC NULLS LAST"),
            ("skill_by_rating_count", "rating_count", "DESC"),
        )
    ),
)
ORDERINGS_UNDO = (
    "DROP INDEX IF EXISTS skill_by_rating_count",
    "DROP INDEX IF EXISTS skill_by_update",
    "DROP INDEX IF EXISTS skill_by_rating",
    "DROP INDEX IF EXISTS skill_by_name",
)
POSTGRES_UNDO = (
    *ORDERINGS_UNDO,
    "DROP INDEX skill_tags",
    "DROP TRIGGER skill_words_emptied ON marketplace_sync_skill",
    "DROP TRIGGER skill_words_changed ON marketplace_sync_skill",
    "DROP TRIGGER skill_words_kept ON marketplace_sync_skill",
    "DROP FUNCTION marketplace_sync_keep_words",
    "DROP FUNCTION marketplace_sync_words_of",
    "DROP TABLE marketplace_sync_skill_words",
)

_WORDS = "{row}.name || ' ' || {row}.description || ' ' || (SELECT ifnull(group_concat(value, ' '), '') FROM json_each({row}.tags))"
_ADD = f"""
    INSERT INTO marketplace_sync_skill_words (rowid, words) VALUES (new.id, {_WORDS.format(row="new")});
    INSERT INTO marketplace_sync_skill_tag (tag, skill) SELECT DISTINCT value, new.id FROM json_each(new.tags);
"""
# DISTINCT and not OR IGNORE, which the ON CONFLICT of the statement that runs the trigger would override.
# The index keeps no copy of the text, so a removal has to contain the text.
_DROP = f"""
    INSERT INTO marketplace_sync_skill_words (marketplace_sync_skill_words, rowid, words)
        VALUES ('delete', old.id, {_WORDS.format(row="old")});
    DELETE FROM marketplace_sync_skill_tag WHERE skill = old.id AND tag IN (SELECT value FROM json_each(old.tags));
"""
SQLITE = (
    # Without positions (`detail=none`) and without a copy of the text (`content=''`): only the skills are needed.
    "CREATE VIRTUAL TABLE IF NOT EXISTS marketplace_sync_skill_words USING fts5"
    "(words, content='', detail=none, columnsize=0, prefix='2', tokenize='unicode61 remove_diacritics 0')",
    "CREATE TABLE IF NOT EXISTS marketplace_sync_skill_tag"
    "(tag text NOT NULL, skill integer NOT NULL, PRIMARY KEY (tag, skill)) WITHOUT ROWID",
    f"CREATE TRIGGER skill_words_added AFTER INSERT ON marketplace_sync_skill BEGIN {_ADD} END",
    f"CREATE TRIGGER skill_words_removed AFTER DELETE ON marketplace_sync_skill BEGIN {_DROP} END",
    # Most updates leave the words alone (a rating, a version); those pay nothing.
    "CREATE TRIGGER skill_words_changed AFTER UPDATE OF id, name, description, tags ON marketplace_sync_skill "
    "WHEN old.id <> new.id OR old.name <> new.name OR old.description <> new.description OR old.tags <> new.tags "
    f"BEGIN {_DROP} {_ADD} END",
    "CREATE INDEX skill_by_name ON marketplace_sync_skill (name, skill_id)",
    "CREATE INDEX skill_by_rating ON marketplace_sync_skill (average_rating DESC, skill_id)",
    "CREATE INDEX skill_by_rating_count ON marketplace_sync_skill (rating_count DESC, skill_id)",
    "CREATE INDEX skill_by_update ON marketplace_sync_skill (remote_updated_at DESC, skill_id)",
    "INSERT INTO marketplace_sync_skill_words (marketplace_sync_skill_words) VALUES ('delete-all')",
    "DELETE FROM marketplace_sync_skill_tag",
    f"INSERT INTO marketplace_sync_skill_words (rowid, words) SELECT id, {_WORDS.format(row='skill')} "
    "FROM marketplace_sync_skill AS skill",
    "INSERT OR IGNORE INTO marketplace_sync_skill_tag (tag, skill) "
    "SELECT value, skill.id FROM marketplace_sync_skill AS skill, json_each(skill.tags)",
)
SQLITE_UNDO = (
    *ORDERINGS_UNDO,
    "DROP TRIGGER IF EXISTS skill_words_changed",
    "DROP TRIGGER IF EXISTS skill_words_removed",
    "DROP TRIGGER IF EXISTS skill_words_added",
    "DROP TABLE IF EXISTS marketplace_sync_skill_tag",
    "DROP TABLE IF EXISTS marketplace_sync_skill_words",
)


def build_sqlite(schema_editor):
    """Create the index, the tag table and the triggers from the stored skills, in place of those that exist."""
    for statement in (*SQLITE_UNDO, *SQLITE):
        schema_editor.execute(statement, params=None)


def build(apps, schema_editor):
    if schema_editor.connection.vendor == "sqlite":
        build_sqlite(schema_editor)
    else:
        for statement in POSTGRES:
            schema_editor.execute(statement, params=None)


def undo(apps, schema_editor):
    for statement in SQLITE_UNDO if schema_editor.connection.vendor == "sqlite" else POSTGRES_UNDO:
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0002_agents_and_audit")]

    operations = [
        migrations.RemoveIndex(model_name="skill", name="skill_by_name"),
        migrations.RemoveIndex(model_name="skill", name="skill_by_rating"),
        migrations.RemoveIndex(model_name="skill", name="skill_by_update"),
        migrations.AddIndex(
            model_name="skill", index=models.Index(fields=["category", "name", "skill_id"], name="skill_by_category")
        ),
        migrations.RunPython(build, undo),
    ]
