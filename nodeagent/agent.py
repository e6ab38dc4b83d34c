"""The daemon: puts the parts together, runs the loop until a signal, and puts everything back.

Order matters: lock, ledger, host, servers; and on the way out values first, then what is only told.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import structlog

from nodeagent import __version__, checkpoint
from nodeagent.config import Config, fixed
from nodeagent.core.explain import Told
from nodeagent.core.histogram import CPU, MEMORY
from nodeagent.directives import Directives
from nodeagent.hands import Acting, Directed, Hands, Idle, actuator_of
from nodeagent.host import Host
from nodeagent.journal import Journal
from nodeagent.keep import Keeper
from nodeagent.kernel.node_lock import NodeLock
from nodeagent.kernel.own import resident_bytes
from nodeagent.leaving import give_back_values, leave_nics, tell_of_nics, tell_of_systemd
from nodeagent.linked import link_of
from nodeagent.lock import Lock
from nodeagent.loop import Loop, Wish
from nodeagent.model.decision import Checkpoint, Memory, Tick
from nodeagent.model.errors import AgentError
from nodeagent.model.event import Event
from nodeagent.model.policy import Policy
from nodeagent.model.rpc_told import RpcTold
from nodeagent.model.settings import Actuator, Mode, OnExit
from nodeagent.originals import Originals
from nodeagent.publish import publishing
from nodeagent.report.events import events
from nodeagent.report.http import HttpServer
from nodeagent.report.metrics import Metrics, OwnCost
from nodeagent.restore import old_nics
from nodeagent.signals import Signals

Publish = Callable[[Tick, Policy, Memory, Sequence[Event]], None]
LATEST_S = 60.0  # after a suspended machine wakes, ticks that were missed are not counted one by one
GC_THRESHOLDS = (50_000, 50, 100)  # ticks make little garbage; a full collection would make a tick late
log = structlog.get_logger()


class Agent:
    """One running daemon. `reload` gives the configuration anew; `show` draws a tick, if not None."""

    def __init__(
        self, config: Config, reload: Callable[[], Config], show: Callable[[Tick, float], None] | None
    ) -> None:
        self._config = config
        self._reload = reload
        self._show = show
        self._before: Tick | None = None
        self._http: HttpServer | None = None
        self._skipped_why = ""
        self._rpc_told: Callable[[], RpcTold | None] = lambda: None
        self._wishes: Callable[[], Sequence[Wish]] = tuple
        agent = config.settings.agent
        self._writes = agent.mode is Mode.ENFORCE and bool(agent.enforce)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. AgentError when it cannot start; a bug crashes it."""
        settings = self._config.settings
        with ExitStack() as stack:
            lock = Lock(settings.agent.state_dir)
            lock.acquire()
            stack.callback(lock.release)
            signals = stack.enter_context(Signals(hangup_stops=self._show is not None))
            host = Host(settings.agent, self._config.rules, self._config.policy, settings.kubernetes)
            stack.callback(host.close)
            if self._writes:
                node_lock = NodeLock(host.hierarchies.walk_root)
                node_lock.acquire()
                stack.callback(node_lock.release)
            originals = Originals(settings.agent.state_dir, host.boot_id)
            stack.callback(originals.close)
            self._assemble(stack, host, originals)
            self._started(host)
            try:
                self._turn(signals)
            finally:
                self._stop(host, originals)

    def _assemble(self, stack: ExitStack, host: Host, originals: Originals) -> None:
        settings = self._config.settings
        state_dir = Path(settings.agent.state_dir)
        saved, warning = checkpoint.load(state_dir, CPU.buckets, MEMORY.buckets)
        if warning:
            log.warning("checkpoint.refused", why=warning)
        self._metrics = Metrics(__version__, max_series=settings.http.max_series)
        self._journal = Journal(state_dir, settings.journal.max_bytes, settings.journal.segment_bytes)
        stack.callback(self._journal.close)
        self._keeper = Keeper(settings.agent.host_root, host.hierarchies.versions, originals)
        host.knobs.gives = self._keeper.gives
        self._originals = originals
        self._directives = Directives(
            settings.agent.state_dir, host.boot_id, settings.directives, enforcing=self._writes
        )
        stack.callback(self._directives.close)
        if self._directives.warning:
            log.warning("directives.lost", why=self._directives.warning)
        self._publish = self._serve(stack)
        self._loop = Loop(
            host,
            originals,
            self._hands(host, originals) if self._writes else Idle(),
            policy=self._config.policy,
            memory=Memory(online=saved.online, lent=saved.lent),
            listener=self,
            wishes=self._wishes,
            asked=self._directives,
        )

    def _hands(self, host: Host, originals: Originals) -> Hands:
        acting = Acting(host, originals, self._keeper, self._config.settings.agent.enforce)
        return Directed(acting, partial(self._leave, host, originals))

    def _serve(self, stack: ExitStack) -> list[Publish]:
        settings = self._config.settings
        served = bool(settings.grpc.address or settings.grpc.tls_address)
        link = self._link = link_of(settings, stack, self._directives, served=served)
        publish: list[Publish] = [lambda tick, *_: link.publish(tick)] if link is not None else []
        if served:
            from nodeagent.rpc.served import served_as  # here: it takes 20 MiB

            rpc = served_as(
                settings,
                hostname=socket.gethostname(),
                version=__version__,
                accountant=Told,
                directives=self._directives,
                beside=link.running if link is not None else nullcontext,
            )
            os.makedirs(settings.agent.run_dir, mode=0o755, exist_ok=True)
            rpc.start()
            stack.callback(rpc.stop)
            publish.append(rpc.publish)
            self._rpc_told = rpc.told
            self._wishes = rpc.control.take
            if rpc.control.closed:
                log.warning("control.closed", why=rpc.control.closed)
            log.info("grpc.listening", address=rpc.address, tls_address=rpc.tls_address)
        if settings.http.address:
            http = HttpServer(settings.http.address, self._metrics.render, tick_s=settings.agent.tick_s)
            http.start()
            stack.callback(http.stop)
            self._http = http
            log.info("http.listening", address=http.address)
        publish += publishing(settings.publish, stack, self._metrics.published)
        return publish

    def _started(self, host: Host) -> None:
        agent = self._config.settings.agent
        log.info(
            "agent.started",
            version=__version__,
            pid=os.getpid(),
            mode=agent.mode.value,
            cgroups=host.hierarchies.mode,
            scope=" ".join(self._config.policy.scope),
            state_dir=agent.state_dir,
            held_from_before=len(self._originals.held),
        )
        if host.kubernetes is not None and host.kubernetes.risk:
            log.warning("kubelet.not_verified", why=host.kubernetes.risk)
        if host.no_network is not None:
            log.warning("nic.off", why=str(host.no_network), hint=host.no_network.hint)
        acting = agent.enforce if self._writes else ()
        if any(actuator_of(knob.kind) not in acting for knob in self._originals.held):
            give_back_values(host, self._originals, self._keeper)
        if Actuator.NIC not in acting:
            tell_of_nics(*old_nics(host.hierarchies.walk_root, locked=self._writes))
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _turn(self, signals: Signals) -> None:
        due = saved_at = time.monotonic()
        reason = "timer"
        while not signals.stop:
            if signals.take_hangup():
                self._take_new_config()
            self._loop.tick(reason)
            now = time.monotonic()
            due = max(due, now - LATEST_S)
            while due <= now:
                due += self._config.settings.agent.tick_s
            if now - saved_at >= self._config.settings.agent.checkpoint_s:
                saved_at = now
                self._save()
            reason = self._wait(due, signals)
            if reason == "signal":
                signals.drain()

    def _wait(self, due: float, signals: Signals) -> str:
        """Until the next tick, with looks at the NICs in between."""
        while True:
            beat_at = time.monotonic() + self._loop.beat_s
            reason = self._loop.wait(min(due, beat_at), signals.fileno())
            if reason != "timer" or time.monotonic() >= due:
                return reason
            self._loop.beat()

    def _stop(self, host: Host, originals: Originals) -> None:
        keep = self._config.settings.agent.on_exit is OnExit.KEEP
        if self._writes and not keep:
            self._leave(host, originals)
        self._save()
        log.info("agent.stopped", kept=len(originals.held))

    def _leave(self, host: Host, originals: Originals) -> bool:
        """All as it was before us; False while something could not be given back."""
        leave_nics(host)
        give_back_values(host, originals, self._keeper)
        return not originals.held

    def ticked(self, tick: Tick, policy: Policy, memory_before: Memory, duration_s: float) -> None:
        """Record, count, tell: the journal first, so that what clients see can be replayed."""
        if self._config.settings.journal.enabled:
            self._record(tick, policy, memory_before)
        self._skipped_why = ""
        own = OwnCost(time.process_time(), resident_bytes())
        self._metrics.observe_tick(tick, duration_s, own)
        self._metrics.journal(
            writing=self._config.settings.journal.enabled and not self._journal.stopped,
            size_bytes=self._journal.bytes,
        )
        self._metrics.linked(self._link.seen() if self._link is not None else None)
        if self._http is not None:
            self._http.tick_finished()
        for warning in self._originals.warnings:
            log.warning("originals", why=warning)
        self._originals.warnings.clear()
        tell_of_systemd(self._keeper)
        for news in self._metrics.clients(self._rpc_told()):
            getattr(log, news.level)(news.name, **news.keys)
        happened = tuple(events(self._before, tick))
        for event in happened:
            getattr(log, event.level)(event.name, **event.keys)
        self._before = tick
        for publish in self._publish:
            publish(tick, policy, memory_before, happened)
        if self._show is not None:
            self._show(tick, duration_s)

    def _record(self, tick: Tick, policy: Policy, memory: Memory) -> None:
        was = self._journal.stopped
        self._journal.append(tick, policy, memory)
        if self._journal.stopped and not was:
            log.warning("journal.stopped", why=self._journal.stopped)
        elif was and not self._journal.stopped:
            log.info("journal.resumed")

    def skipped(self, error: AgentError) -> None:
        """The node could not be read."""
        self._metrics.skip_tick()
        if self._http is not None:
            self._http.tick_finished(complete=False)
        if str(error) != self._skipped_why:
            log.warning("tick.skipped", why=str(error), hint=error.hint)
        self._skipped_why = str(error)

    def _save(self) -> None:
        memory, state_dir = self._loop.memory, Path(self._config.settings.agent.state_dir)
        saved = Checkpoint(memory.online, memory.lent)
        parts: dict[str, Callable[[], None]] = {
            "checkpoint": partial(checkpoint.save, state_dir, saved),
            "directives": self._directives.save,
        }
        for what, save in parts.items():
            try:
                save()
            except AgentError as error:
                log.warning(f"{what}.failed", why=str(error), hint=error.hint)

    def _take_new_config(self) -> None:
        """Take the policy, the rules and the pace anew; a bad file is refused and the old one stays."""
        try:
            config = self._reload()
        except AgentError as error:
            self._metrics.reloaded(ok=False)
            log.error("config.refused", why=str(error), hint=error.hint)
            return
        restart = fixed(config) != fixed(self._config)
        self._metrics.reloaded(ok=True)
        self._config = config
        self._loop.take(config.policy, config.rules)
        log.info("config.reloaded", path=config.path or "", restart_needed_for_the_rest=restart)
