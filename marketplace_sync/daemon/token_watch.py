"""The task that notices a replaced token, so that parts that were refused retry without waiting."""

import asyncio
from typing import Protocol

from marketplace_sync.upstream.token import LOOK_EVERY, Token


class TokenUser(Protocol):
    """A part of the daemon that may have been refused with the old token."""

    def token_replaced(self) -> None:
        """Note that attempts from now on present another token."""


async def watch_token(token: Token, *users: TokenUser) -> None:
    """Notify `users` of each new token, until cancelled."""
    known = token.now()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        found = token.now()
        if found != known:
            known = found
            for user in users:
                user.token_replaced()
