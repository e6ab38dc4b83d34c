"""The latest tick, handed from the agent's loop to one reader on an event loop of another thread.

Invariant: put() is one assignment and at most one wake-up; of what the reader missed only the last is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from nodeagent.model.decision import Tick
from nodeagent.rpc.posted import Posted


class Mailbox:
    """`put` is for any thread, all else for the reader's event loop."""

    def __init__(self) -> None:
        self.latest: Posted | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poked = False
        self._news = asyncio.Event()

    def put(self, tick: Tick) -> None:
        """This tick instead of the one before. O(1), waits for nothing."""
        self.latest = Posted(tick, time.monotonic())
        if self._loop is not None and not self._poked:
            self._poked = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.wake)

    def attach(self) -> None:
        """The reader runs on this event loop."""
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """Let the reader look, whatever the reason."""
        self._poked = False  # first: a tick that is put from here on pokes again
        self._news.set()

    def clear(self) -> None:
        """What is put from here on ends the next wait; to be called before `latest` is read."""
        self._news.clear()

    async def wait(self, timeout_s: float | None) -> None:
        """Until there is news, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
