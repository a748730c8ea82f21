"""When a command was asked for again: the open one is returned, and no second one written."""

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
