"""Skills that are kept although the marketplace no longer lists them, because somebody dismissed their removal."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0015_guards_find_their_own_tables")]

    operations = [
        migrations.CreateModel(
            name="DismissedRemoval",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("skill_id", models.CharField(max_length=255, unique=True)),
                ("run_id", models.BigIntegerField()),
                ("dismissed_at", models.DateTimeField()),
                ("dismissed_by", models.CharField(max_length=255)),
            ],
        ),
        migrations.AlterField(
            model_name="syncrun",
            name="state",
            field=models.CharField(
                choices=[
                    ("running", "Running"),
                    ("done", "Done"),
                    ("failed", "Failed"),
                    ("held", "Held"),
                    ("approved", "Approved"),
                    ("dismissed", "Dismissed"),
                    ("superseded", "Superseded"),
                    ("interrupted", "Interrupted"),
                ],
                default="running",
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="command",
            name="action",
            field=models.CharField(
                choices=[
                    ("reconnect", "Reconnect"),
                    ("disable", "Disable"),
                    ("enable", "Enable"),
                    ("sync", "Sync"),
                    ("approve", "Approve"),
                    ("dismiss", "Dismiss"),
                    ("replay", "Replay"),
                ],
                max_length=20,
            ),
        ),
    ]
