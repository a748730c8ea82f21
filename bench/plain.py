"""The table of the yardsticks: a skill as people would store it, with one unique index. `python -m bench.plain`
migrates the database that `DATABASE_URL` names, and makes that table in it."""

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402


class PlainSkill(models.Model):
    """A table without search, feed, tombstones and counters."""

    skill_id = models.CharField(max_length=255, unique=True)
    name = models.CharField(max_length=255)
    description = models.TextField()
    version = models.CharField(max_length=64)
    code = models.TextField()
    command = models.CharField(max_length=255)
    python_packages = models.JSONField()
    npm_packages = models.JSONField()
    tags = models.JSONField()
    metadata = models.JSONField()
    category = models.CharField(max_length=255)
    average_rating = models.FloatField(null=True)
    rating_count = models.IntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label = "bench"
        db_table = "bench_plain_skill"

    def __str__(self) -> str:
        return self.name


COLUMNS = tuple(field.name for field in PlainSkill._meta.fields if field.name != "id")


if __name__ == "__main__":
    call_command("migrate", verbosity=0, skip_checks=True)
    with connection.schema_editor() as editor:
        editor.create_model(PlainSkill)
