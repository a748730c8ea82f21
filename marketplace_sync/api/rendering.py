"""JSON with every time in ISO 8601 and UTC, independent of the embedding project's settings."""

from datetime import UTC, datetime
from typing import Any

from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder


def utc_text(time: datetime) -> str:
    """Return a time in the format of all answers: `2026-01-15T10:30:00.123456Z`."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Encoder(JSONEncoder):
    """DRF's encoder, with our format of times."""

    def default(self, obj: Any) -> Any:
        return utc_text(obj) if isinstance(obj, datetime) else super().default(obj)


class Renderer(JSONRenderer):
    """DRF's renderer. It formats times, because a serializer field would use `DATETIME_FORMAT` and `TIME_ZONE`.

    A field would also fail for the years 1 and 9999, which another time zone moves out of Python's range.
    """

    encoder_class = Encoder
    # These too would otherwise be settings of the project.
    ensure_ascii = False
    compact = True
    strict = True
