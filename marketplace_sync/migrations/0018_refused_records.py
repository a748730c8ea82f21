"""Store what a sync could not read: its state is `degraded`, and the mirror is not known to be complete."""

from django.db import migrations, models

STATES = [
    ("running", "Running"), ("done", "Done"), ("degraded", "Degraded"), ("failed", "Failed"), ("held", "Held"),
    ("approved", "Approved"), ("dismissed", "Dismissed"), ("superseded", "Superseded"), ("interrupted", "Interrupted"),
]  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0017_agent_of_any_user")]

    operations = [
        migrations.AddField("syncrun", "listed_categories", models.PositiveIntegerField(db_default=0, default=0)),
        migrations.AddField("syncrun", "refused_categories", models.PositiveIntegerField(db_default=0, default=0)),
        migrations.AlterField(
            "syncrun", "state", models.CharField(choices=STATES, default="running", max_length=12)
        ),
        migrations.AddField("websocketstate", "complete", models.BooleanField(db_default=True, default=True)),
    ]
