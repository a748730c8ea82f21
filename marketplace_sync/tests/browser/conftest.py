"""One Chromium for all tests of a process: to start it takes longer than most of them."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from marketplace_sync.tests.support import browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Yield the Chromium of this process. Its tests run in the event loop that it belongs to, the session's."""
    async with browser.chromium() as started:
        yield started
