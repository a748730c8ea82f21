"""Note which full sync compared the stored rows themselves, so that a restart does not delay the next such sync."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0013_repeated_commands")]

    operations = [
        migrations.AddField(
            model_name="syncrun", name="by_row", field=models.BooleanField(db_default=False, default=False)
        ),
    ]
