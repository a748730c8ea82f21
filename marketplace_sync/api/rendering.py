"""How an answer is written: JSON, with every time in ISO 8601, UTC, whatever the host project's settings are."""

from datetime import UTC, datetime
from typing import Any

from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder


def utc_text(moment: datetime) -> str:
    """Return a time as every answer has it: `2026-01-15T10:30:00.123456Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Encoder(JSONEncoder):
    """DRF's, with our form of a time."""

    def default(self, obj: Any) -> Any:
        return utc_text(obj) if isinstance(obj, datetime) else super().default(obj)


class Renderer(JSONRenderer):
    """Times reach it as they are: a serializer's field would write them by `DATETIME_FORMAT` and `TIME_ZONE`.

    There it also fails for the years 1 and 9999, which another time zone moves out of what Python can count.
    """

    encoder_class = Encoder
    # Else settings of the host as well.
    ensure_ascii = False
    compact = True
    strict = True
