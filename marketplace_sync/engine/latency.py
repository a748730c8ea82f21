"""How late things are, counted in a histogram of bounded size: quantiles of any stretch of time, by adding counts up.

Bucket n holds what took longer than 1 ms × 1.1ⁿ⁻¹ and up to 1 ms × 1.1ⁿ, bucket 0 all up to a millisecond, and the
last one, 192, reaches to a day. A quantile is the middle of its bucket: right within 5 %.
"""

import math
from collections.abc import Mapping

_LEAST_SECONDS = 0.001
_GROWTH = 1.1
MOST_SECONDS = 86_400.0
LAST_BUCKET = math.ceil(math.log(MOST_SECONDS / _LEAST_SECONDS, _GROWTH))


def bucket_of(seconds: float) -> int:
    """Where a length of time is counted. Less than nothing, which two clocks make of very little, is nothing."""
    if seconds <= _LEAST_SECONDS:
        return 0
    # Rounded first: a bound, worked out, must not land beyond itself.
    return min(math.ceil(round(math.log(seconds / _LEAST_SECONDS, _GROWTH), 9)), LAST_BUCKET)


def seconds_of(bucket: int) -> float:
    """The middle of a bucket, by ratio."""
    return _LEAST_SECONDS * math.pow(_GROWTH, max(bucket - 0.5, 0.0))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Seconds that `share` (0 to 1) of what was counted did not exceed; `None` when nothing was."""
    total = sum(counts.values())
    if total <= 0:
        return None
    rank = max(math.ceil(share * total), 1)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return seconds_of(bucket)
    return None
