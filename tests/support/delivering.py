"""Deliveries of reports, for tests whose clock stands still meanwhile."""

import asyncio

from visa_jupyter_proxy.control.reports import Delivery


async def deliver(delivery: Delivery) -> None:
    """Run it until what is due has been sent, and what became due by that."""
    running = asyncio.create_task(delivery.run())
    await asyncio.sleep(0)
    while delivery._tasks or delivery._changed.is_set():
        await (asyncio.wait(delivery._tasks) if delivery._tasks else asyncio.sleep(0))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
