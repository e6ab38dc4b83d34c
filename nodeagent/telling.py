"""Who is told of each turn: the journal first, then metrics, log, clients, controller, API server, systemd.

Invariant: nobody who is told makes the loop wait.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import structlog

from nodeagent import __version__
from nodeagent.apps.applications import Applications
from nodeagent.core.explain import Told
from nodeagent.directives import Directives
from nodeagent.journal import Journal
from nodeagent.keep import Keeper
from nodeagent.kernel.own import resident_bytes
from nodeagent.leaving import tell_of_systemd
from nodeagent.linked import link_of
from nodeagent.loop import Wish
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import AgentError
from nodeagent.model.event import Event
from nodeagent.model.policy import Policy
from nodeagent.model.rpc_told import RpcTold
from nodeagent.model.settings import Actuator, Settings
from nodeagent.originals import Originals
from nodeagent.publish import publishing
from nodeagent.report.events import events
from nodeagent.report.http import HttpServer
from nodeagent.report.metrics import Metrics, OwnCost
from nodeagent.report.sd_notify import Supervisor
from nodeagent.report.status import status_line

Publish = Callable[[Tick, Policy, Memory, Sequence[Event]], None]
Show = Callable[[Tick, float], None]
log = structlog.get_logger()


class Telling:
    """The loop's listener; `wishes` tells what clients asked for since the last tick.

    Servers listen from the start until `stack` is left. Failed when one cannot. `acting` are the actuators
    that write; `show` draws a tick, if not None.
    """

    def __init__(  # noqa: PLR0913  # those it tells for
        self,
        settings: Settings,
        stack: ExitStack,
        *,
        originals: Originals,
        keeper: Keeper,
        directives: Directives,
        supervisor: Supervisor,
        acting: Collection[Actuator],
        show: Show | None,
        applications: Applications,
    ) -> None:
        self.wishes: Callable[[], Sequence[Wish]] = tuple
        self.metrics = Metrics(__version__, max_series=settings.http.max_series)
        self._settings = settings
        self._originals, self._keeper = originals, keeper
        self._supervisor, self._acting, self._show = supervisor, acting, show
        self._applications = applications
        self._before: Tick | None = None
        self._skipped_why = ""
        self._rpc_told: Callable[[], RpcTold | None] = lambda: None
        journal = settings.journal
        self._journal = Journal(Path(settings.agent.state_dir), journal.max_bytes, journal.segment_bytes)
        stack.callback(self._journal.close)
        self._publish = self._rpc(stack, directives)
        self._http = self._served(stack)
        self._publish += publishing(settings.publish, stack, self.metrics.published)

    def ticked(self, tick: Tick, policy: Policy, memory_before: Memory, duration_s: float) -> None:
        """Record, count, tell: the journal first, so that what clients see can be replayed."""
        if self._settings.journal.enabled:
            self._record(tick, policy, memory_before)
        self._skipped_why = ""
        self._count(tick, duration_s)
        if self._http is not None:
            self._http.tick_finished()
        happened = tuple(events(self._before, tick))
        self._log(happened)
        self._before = tick
        for publish in self._publish:
            publish(tick, policy, memory_before, happened)
        if self._show is not None:
            self._show(tick, duration_s)
        if self._supervisor.listens:
            self._supervisor.ready(status_line(tick, self._acting))

    def skipped(self, error: AgentError) -> None:
        """The node could not be read."""
        self.metrics.skip_tick()
        if self._http is not None:
            self._http.tick_finished(complete=False)
        if str(error) != self._skipped_why:
            log.warning("tick.skipped", why=str(error), hint=error.hint)
        self._skipped_why = str(error)
        self._supervisor.status(f"changing nothing: {error}")

    def _rpc(self, stack: ExitStack, directives: Directives) -> list[Publish]:
        grpc = self._settings.grpc
        served = bool(grpc.address or grpc.tls_address)
        link = self._link = link_of(self._settings, stack, directives, served=served)
        publish: list[Publish] = [lambda tick, *_: link.publish(tick)] if link is not None else []
        if not served:
            return publish
        from nodeagent.rpc.served import served_as  # here: it takes 20 MiB

        rpc = served_as(
            self._settings,
            hostname=socket.gethostname(),
            version=__version__,
            accountant=Told,
            directives=directives,
            beside=link.running if link is not None else nullcontext,
            pushes=self._applications,
        )
        os.makedirs(self._settings.agent.run_dir, mode=0o755, exist_ok=True)
        rpc.start()
        stack.callback(rpc.stop)
        self._rpc_told = rpc.told
        self.wishes = rpc.control.take
        if rpc.control.closed:
            log.warning("control.closed", why=rpc.control.closed)
        log.info("grpc.listening", address=rpc.address, tls_address=rpc.tls_address)
        return [*publish, rpc.publish]

    def _served(self, stack: ExitStack) -> HttpServer | None:
        if not self._settings.http.address:
            return None
        tick_s = self._settings.agent.tick_s
        http = HttpServer(self._settings.http.address, self.metrics.render, tick_s=tick_s)
        http.start()
        stack.callback(http.stop)
        log.info("http.listening", address=http.address)
        return http

    def _record(self, tick: Tick, policy: Policy, memory: Memory) -> None:
        was = self._journal.stopped
        self._journal.append(tick, policy, memory)
        if self._journal.stopped and not was:
            log.warning("journal.stopped", why=self._journal.stopped)
        elif was and not self._journal.stopped:
            log.info("journal.resumed")

    def _count(self, tick: Tick, duration_s: float) -> None:
        self.metrics.observe_tick(tick, duration_s, OwnCost(time.process_time(), resident_bytes()))
        self.metrics.journal(
            writing=self._settings.journal.enabled and not self._journal.stopped,
            size_bytes=self._journal.bytes,
        )
        self.metrics.applications(self._applications.figures())
        self.metrics.linked(self._link.seen() if self._link is not None else None)

    def _log(self, happened: Sequence[Event]) -> None:
        for warning in self._originals.warnings:
            log.warning("originals", why=warning)
        self._originals.warnings.clear()
        tell_of_systemd(self._keeper)
        for news in self.metrics.clients(self._rpc_told()):
            getattr(log, news.level)(news.name, **news.keys)
        for event in happened:
            getattr(log, event.level)(event.name, **event.keys)
