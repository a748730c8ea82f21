"""What the commands that need a marketplace have in common."""

import sys

from django.conf import settings
from django.core.management.base import BaseCommand

from marketplace_sync.conf import ConfigError, SyncConfig, load_config


def configured(command: BaseCommand, *, fault_status: int = 1) -> SyncConfig:
    """The settings; or one clear line a fault, and the end of the command before anything is touched."""
    try:
        config = load_config(settings, need_marketplace=True)
    except ConfigError as error:
        for fault in error.faults:
            command.stderr.write(f"{fault.message} {fault.hint}")
        sys.exit(fault_status)
    if not config.enabled:
        command.stdout.write("ATOM_SAAS_ENABLED is false: no connection is made, the local mirror stays as it is.")
        sys.exit(0)
    return config
