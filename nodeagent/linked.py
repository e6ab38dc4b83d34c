"""The link to the controller, put together from the configuration; without an address there is none."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from nodeagent import __version__
from nodeagent.directives import Directives
from nodeagent.model.settings import Settings

if TYPE_CHECKING:
    from nodeagent.rpc.link import Link


def link_of(settings: Settings, stack: ExitStack, directives: Directives, *, served: bool) -> Link | None:
    """Not yet running; unless `served`, when a gRPC server runs it, on a thread until `stack` is left."""
    if not settings.controller.address:
        return None
    from nodeagent.rpc.directing import Denied, result  # here: they take 20 MiB
    from nodeagent.rpc.links import LinkThread, link_to

    link = link_to(
        settings.controller,
        env=os.environ,
        hostname=socket.gethostname(),
        version=__version__,
        mode=settings.agent.mode,
        take=partial(result, directives),
        refuse=Denied(directives).answer,
    )
    if not served:
        thread = LinkThread(link)
        thread.start()
        stack.callback(thread.stop)
    return link
