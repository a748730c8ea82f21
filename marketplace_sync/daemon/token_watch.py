"""The task that looks whether the token was replaced, so that whoever was refused tries again at once."""

import asyncio
from typing import Protocol

from marketplace_sync.upstream.token import LOOK_EVERY, Token


class Refusable(Protocol):
    """Whoever may have been refused with the old token."""

    def token_replaced(self) -> None:
        """Attempts that begin from now on bring another token."""


async def watch_token(token: Token, *refusable: Refusable) -> None:
    """Until cancelled."""
    known = token.now()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        found = token.now()
        if found != known:
            known = found
            for one in refusable:
                one.token_replaced()
