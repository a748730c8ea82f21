"""Messages that break the protocol, one of each known kind.

None of them may change a mirror. Those that a tolerant reader accepts (a time far ahead, a key given twice) repeat a
skill exactly as it is.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.wire import encode


class BadMessage(NamedTuple):
    """The payload of one frame; `binary` where the frame is not text."""

    payload: bytes
    binary: bool = False


_NOWHERE = '"data":{"skill_id":"malformed","name":'

PAYLOADS: tuple[BadMessage, ...] = (
    BadMessage(b""),
    BadMessage(b"not json"),
    BadMessage(b'{"type":"skill_update","data":{"skill_id":"malf'),
    BadMessage(b'["skill_update"]'),
    BadMessage(b"null"),
    BadMessage(b'"skill_update"'),
    BadMessage(b"{}"),
    BadMessage(b'{"type":"skill_explode","data":{}}'),
    BadMessage(b'{"type":["skill_update"],"data":{}}'),
    BadMessage(b'{"type":"skill_update"}'),
    BadMessage(b'{"type":"skill_update","data":null}'),
    BadMessage(b'{"type":"skill_update","data":{"name":"No id"}}'),
    BadMessage(b'{"type":"skill_update","data":{"skill_id":"malformed"}}'),
    BadMessage(b'{"type":"skill_update","data":{"skill_id":"  ","name":"Blank id"}}'),
    BadMessage(b'{"type":"skill_update","data":{"skill_id":"..","name":"Id that no URL can ask for"}}'),
    BadMessage(b'{"type":"skill_update","data":{"skill_id":{"a":1},"name":"Id of another type"}}'),
    BadMessage(b'{"type":"skill_update",%s["a list"]}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"NUL \\u0000"}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"Lone \\ud800 surrogate"}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"\xff\xfe not UTF-8"}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"NaN","average_rating":NaN}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"Huge","rating_count":%s}}' % (_NOWHERE.encode(), b"9" * 5_000)),
    BadMessage(b'{"type":"skill_update",%s"Beyond doubles","average_rating":1e999}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"No time","updated_at":"yesterday"}}' % _NOWHERE.encode()),
    BadMessage(b'{"type":"skill_update",%s"Deep","metadata":%s1%s}}' % (
        _NOWHERE.encode(), b'{"a":' * 50_000, b"}" * 50_000)),
    BadMessage(b"[" * 100_000),
    BadMessage(b'{"type":"rating_update","data":{"skill_id":"malformed","rating":6}}'),
    BadMessage(b'{"type":"rating_update","data":{"skill_id":"malformed","rating":4.5}}'),
    BadMessage(b'{"type":"rating_update","data":{"skill_id":"malformed"}}'),
    BadMessage(b'{"type":"skill_delete","data":{}}'),
    BadMessage(b'{"type":"category_update","data":{"name":""}}'),
    BadMessage(b'{"type":"ping","type":"skill_update","data":{}}'),
    BadMessage(b"\x00\x01\x02\x03", binary=True),
)  # fmt: skip


def bad_messages(market: Marketplace, seed: int) -> Iterator[BadMessage]:
    """Yield malformed messages without end, every kind once per round, in an order that `seed` determines."""
    order = random.Random(seed)
    while True:
        round_ = [*PAYLOADS, *_harmless(market)]
        order.shuffle(round_)
        yield from round_


def _harmless(market: Marketplace) -> list[BadMessage]:
    skill = next(iter(market.skills.values()), None)
    if skill is None:
        return []
    ahead = encode({"type": "skill_update", "data": {**skill, "updated_at": "9999-12-31T23:59:59Z"}})
    twice = b'{"type":"skill_delete",' + encode({"type": "skill_update", "data": skill})[1:]
    return [BadMessage(ahead), BadMessage(twice)]
