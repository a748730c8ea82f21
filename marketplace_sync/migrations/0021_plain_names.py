"""Two fields have plainer names in Python; their columns keep the names that the release before uses."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0020_suspended_state")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RenameField("tombstone", "buried_at", "removed_at"),
                migrations.AlterField(
                    "tombstone", "removed_at", models.DateTimeField(db_column="buried_at", db_index=True)
                ),
                migrations.RenameField("websocketstate", "level_at", "in_sync_at"),
                migrations.AlterField("websocketstate", "in_sync_at", models.DateTimeField(db_column="level_at", null=True)),
            ]
        )
    ]
