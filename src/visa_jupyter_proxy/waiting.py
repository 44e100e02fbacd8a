"""Waiting that has an end."""

import asyncio


async def happens(event: asyncio.Event, within_s: float | None) -> bool:
    """Wait until `event` is set, for so many seconds at most (None: for ever); whether it is."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
