"""A histogram of delays of bounded size: adding counts gives the quantiles of any period.

Bucket n counts delays above 1 ms × 1.1ⁿ⁻¹ and up to 1 ms × 1.1ⁿ, bucket 0 all up to a millisecond; the last one, 192,
reaches to a day. A quantile is the middle of its bucket, so its error is at most 5 %.
"""

import math
from collections.abc import Mapping

_LEAST_SECONDS = 0.001
_GROWTH = 1.1
MOST_SECONDS = 86_400.0
LAST_BUCKET = math.ceil(math.log(MOST_SECONDS / _LEAST_SECONDS, _GROWTH))


def bucket_of(seconds: float) -> int:
    """Return the bucket of a delay. A negative one, which two clocks make of a very short one, counts as 0 s."""
    if seconds <= _LEAST_SECONDS:
        return 0
    # Rounded first: the computed bound of a bucket must not fall into the next one.
    return min(math.ceil(round(math.log(seconds / _LEAST_SECONDS, _GROWTH), 9)), LAST_BUCKET)


def seconds_of(bucket: int) -> float:
    """Return the middle of a bucket, as the geometric mean of its bounds."""
    return _LEAST_SECONDS * math.pow(_GROWTH, max(bucket - 0.5, 0.0))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the seconds that `share` (0 to 1) of the counted delays did not exceed; `None` if none was counted."""
    total = sum(counts.values())
    if total <= 0:
        return None
    rank = max(math.ceil(share * total), 1)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return seconds_of(bucket)
    return None
