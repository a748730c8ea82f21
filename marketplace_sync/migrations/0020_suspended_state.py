"""`resting` is `suspended`: choices alone, no column and no row changes (see `models.fields.ConnectionStateField`)."""

from django.db import migrations, models

STATES = [
    ("not_running", "Not Running"), ("connecting", "Connecting"), ("catching_up", "Catching Up"), ("live", "Live"),
    ("reconnecting", "Reconnecting"), ("polling", "Polling"), ("suspended", "Suspended"), ("disabled", "Disabled"),
]  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0019_where_deleted_skills_stood")]

    operations = [
        migrations.AlterField(
            "websocketstate", "state", models.CharField(choices=STATES, default="not_running", max_length=12)
        ),
    ]
