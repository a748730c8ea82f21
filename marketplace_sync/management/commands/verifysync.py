"""`manage.py verifysync`: check whether the mirror is in sync with the marketplace."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from marketplace_sync.daemon.entry import OperatorError, compare
from marketplace_sync.management.marketplace import configured, fail, print_json, print_line
from marketplace_sync.mirror.compare import Difference

# Keys shown per kind in the text; --json shows all.
SHOWN = 20


class Command(BaseCommand):
    help = "Compare mirror and marketplace. Exit 0: in sync, 1: not in sync, 2: the marketplace cannot be read."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the whole difference as JSON")
        parser.add_argument("--repair", action="store_true", help="bring the mirror in sync first, removals included")

    def handle(self, *, json: bool, repair: bool, **options: Any) -> None:
        config, access = configured(self, error_status=2, off_status=2)
        try:
            difference = compare(config, access, repair=repair)
        except OperatorError as failure:
            fail(self, f"verifysync: {failure}", status=failure.status)
        if json:
            print_json(self, _as_json(difference))
        else:
            self._print(difference)
        sys.exit(0 if difference.in_sync else 1)

    def _print(self, difference: Difference) -> None:
        for title, keys in (
            ("missing in the mirror", sorted(difference.missing)),
            ("no longer in the marketplace", sorted(difference.extra)),
            ("different", [f"{key}: {', '.join(fields)}" for key, fields in sorted(difference.different.items())]),
            ("categories missing in the mirror", sorted(difference.missing_categories)),
            ("categories no longer in the marketplace", sorted(difference.extra_categories)),
            (
                "categories different",
                [f"{key}: {', '.join(fields)}" for key, fields in sorted(difference.different_categories.items())],
            ),
            ("listed, but not readable: their content is not in the mirror", difference.refused),
            ("not in the search index as their rows are", sorted(difference.misfiled)),
            ("with a later updated_at and all fields equal, which is no difference", sorted(difference.later)),
            ("categories with a later updated_at and all fields equal", sorted(difference.later_categories)),
        ):
            if keys:
                print_line(self, f"{len(keys)} {title}:")
                for key in keys[:SHOWN]:
                    print_line(self, f"  {key}")
                if len(keys) > SHOWN:
                    print_line(self, f"  … and {len(keys) - SHOWN} more")
        if difference.unnamed:
            print_line(
                self, f"{difference.unnamed} of them have no readable id: each may be any skill that is not listed."
            )
        print_line(self, "In sync with the marketplace." if difference.in_sync else "Not in sync with the marketplace.")


def _as_json(difference: Difference) -> dict[str, Any]:
    return {
        "level": difference.in_sync,
        "missing": sorted(difference.missing),
        "extra": sorted(difference.extra),
        "different": difference.different,
        "withheld": 0,
        "later": sorted(difference.later),
        "misfiled": sorted(difference.misfiled),
        "categories": {
            "missing": sorted(difference.missing_categories),
            "extra": sorted(difference.extra_categories),
            "different": difference.different_categories,
            "later": sorted(difference.later_categories),
        },
        "refused": difference.refused,
    }
