"""Add the time at which an open command was submitted again, instead of a second row."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0012_rare_tags_known")]

    operations = [
        migrations.AddField(
            model_name="command",
            name="repeated_at",
            field=models.DateTimeField(null=True),
        ),
    ]
