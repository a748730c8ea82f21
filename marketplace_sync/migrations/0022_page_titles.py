"""Titles of admin pages: names of models alone, no column and no row changes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("marketplace_sync", "0021_plain_names")]

    operations = [
        migrations.AlterModelOptions(
            "auditrow",
            {
                "ordering": ("-id",),
                "verbose_name": "audit row",
                "verbose_name_plural": "audit log",
                "default_permissions": ("view",),
            },
        ),
        migrations.AlterModelOptions("feedchange", {"ordering": ("seq",), "verbose_name_plural": "change feed"}),
        migrations.AlterModelOptions(
            "websocketstate", {"verbose_name": "WebSocket state", "verbose_name_plural": "WebSocket"}
        ),
    ]
