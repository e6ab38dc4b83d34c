"""The daemon: puts the parts together, runs the loop until a signal, and puts everything back.

Order matters: lock, ledger, host, servers; and on the way out values first, then what is only told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import structlog

from nodeagent import __version__, checkpoint
from nodeagent.apps.applications import Applications
from nodeagent.config import Config, fixed
from nodeagent.core.histogram import CPU, MEMORY
from nodeagent.core.interference import learn
from nodeagent.directives import Directives
from nodeagent.garbage import Garbage
from nodeagent.hands import Acting, Directed, Hands, Idle
from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.kernel.node_lock import NodeLock
from nodeagent.kernel.own_sched import FirstInLine
from nodeagent.kernel.peer import cgroup_of
from nodeagent.leaving import give_back_values, leave_nics, tell_of_nics
from nodeagent.lock import Lock
from nodeagent.loop import Loop
from nodeagent.model.decision import Checkpoint, Memory
from nodeagent.model.errors import AgentError
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.settings import Actuator, Mode, OnExit, actuator_of
from nodeagent.originals import Originals
from nodeagent.pace import Pace
from nodeagent.report.sd_notify import Supervisor
from nodeagent.restore import old_nics
from nodeagent.signals import Signals
from nodeagent.telling import Show, Telling

log = structlog.get_logger()


class Agent:
    """One running daemon. `reload` gives the configuration anew; `show` draws a tick, if not None."""

    def __init__(self, config: Config, reload: Callable[[], Config], show: Show | None) -> None:
        self._config = config
        self._reload = reload
        self._show = show
        agent = config.settings.agent
        self._acting = agent.enforce if agent.mode is Mode.ENFORCE else ()
        self._writes = bool(self._acting)
        self._supervisor = Supervisor(os.environ)
        self._first = FirstInLine()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. AgentError when it cannot start; a bug crashes it."""
        settings = self._config.settings
        with ExitStack() as stack:
            stack.callback(self._supervisor.close)
            stack.enter_context(Lock(settings.agent.state_dir))
            signals = stack.enter_context(Signals(hangup_stops=self._show is not None))
            host = Host(settings.agent, self._config.rules, self._config.policy, settings.kubernetes)
            stack.callback(host.close)
            if self._writes:
                stack.enter_context(NodeLock(host.hierarchies.walk_root))
            originals = stack.enter_context(closing(Originals(settings.agent.state_dir, host.boot_id)))
            self._hear(stack, host)
            self._assemble(stack, host, originals)
            self._started(host)
            try:
                self._in_line()
                self._turn(signals)
            finally:
                self._first.end()
                self._stop(host, originals)

    def _hear(self, stack: ExitStack, host: Host) -> None:
        """What applications tell."""
        settings, rules = self._config.settings.app_signals, self._config.apps
        where = partial(cgroup_of, at=host.hierarchies.walk)
        host.applications = self._applications = Applications(settings, rules, where)
        stack.callback(self._applications.close)

    def _assemble(self, stack: ExitStack, host: Host, originals: Originals) -> None:
        settings = self._config.settings
        saved, warning = checkpoint.load(Path(settings.agent.state_dir), CPU.buckets, MEMORY.buckets)
        if warning:
            log.warning("checkpoint.refused", why=warning)
        self._keeper = Keeper(settings.agent.host_root, host.hierarchies.versions, originals)
        host.knobs.gives = self._keeper.gives
        self._originals = originals
        self._directives = Directives(
            settings.agent.state_dir, host.boot_id, settings.directives, enforcing=self._writes
        )
        stack.callback(self._directives.close)
        if self._directives.warning:
            log.warning("directives.lost", why=self._directives.warning)
        self._telling = Telling(
            settings,
            stack,
            originals=originals,
            keeper=self._keeper,
            directives=self._directives,
            supervisor=self._supervisor,
            acting=self._acting,
            show=self._show,
            applications=self._applications,
        )
        self._hands = self._acted(host, originals) if self._writes else Idle()
        self._loop = Loop(
            host,
            originals,
            self._hands,
            policy=self._config.policy,
            memory=_remembered(saved),
            listener=self._telling,
            wishes=self._telling.wishes,
            asked=self._directives,
        )

    def _acted(self, host: Host, originals: Originals) -> Hands:
        acting = Acting(host, originals, self._keeper, self._config.settings.agent.enforce)
        return Directed(acting, partial(self._leave, host, originals))

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
        if (error := host.no_counters) is not None and self._config.policy.interference.detect:
            log.info("pmu.off", why=str(error), hint=error.hint)
        if any(actuator_of(knob.kind) not in self._acting for knob in self._originals.held):
            give_back_values(host, self._originals, self._keeper)
        self._hands.thaw()
        if Actuator.NIC not in self._acting:
            tell_of_nics(*old_nics(host.hierarchies.walk_root, locked=self._writes))

    def _turn(self, signals: Signals) -> None:
        saved_at = time.monotonic()
        pace, garbage = Pace(saved_at), Garbage(saved_at)
        reason = "timer"
        while not signals.stop:
            if signals.take_hangup():
                self._take_new_config()
            late_s = pace.begun(time.monotonic())
            self._loop.tick(reason)
            now = time.monotonic()
            missed = pace.ended(now, self._config.settings.agent.tick_s)
            self._telling.metrics.paced(late_s, missed, first=self._first.needed(now))
            if now - saved_at >= self._config.settings.agent.checkpoint_s:
                saved_at = now
                self._save()
            garbage.after_tick(now)
            reason = self._wait(pace.due, signals)

    def _wait(self, due: float, signals: Signals) -> str:
        """Until the next tick, with looks at LS pods and NICs in between, and words to the watchdog."""
        now = time.monotonic()
        look_at, beat_at = now + self._loop.look_s, now + self._loop.beat_s
        while True:
            began = time.monotonic()
            self._first.renew(began)
            until = min(due, look_at, beat_at, began + self._supervisor.alive())
            reason = self._loop.wait(until, signals.fileno())
            now = time.monotonic()
            if reason == "timer" and not self._loop.at_work:
                self._first.woke(now - max(until, began), now)
            if reason == "signal":
                signals.drain()
                if not signals.came:  # SIGXCPU, which calls for nothing
                    continue
            if reason != "timer" or now >= due:
                return reason
            if now >= look_at:
                if reason := self._loop.look():
                    return reason
                look_at = now + self._loop.look_s
            if now >= beat_at:
                self._loop.beat()
                beat_at = now + self._loop.beat_s

    def _in_line(self) -> None:
        """Before all other threads or not, as the configuration has it; where that is refused, it goes on."""
        if not self._config.settings.agent.realtime:
            self._first.end()
        elif not self._first.on:
            try:
                self._first.begin()
            except AgentError as error:
                log.info("realtime.refused", why=str(error), hint=error.hint)

    def _stop(self, host: Host, originals: Originals) -> None:
        keep = self._config.settings.agent.on_exit is OnExit.KEEP
        self._supervisor.stopping("keeping all values, nobody frozen" if keep else "giving all values back")
        if self._writes and not keep:
            self._leave(host, originals)
        self._hands.thaw()
        self._save()
        log.info("agent.stopped", kept=len(originals.held))

    def _leave(self, host: Host, originals: Originals) -> bool:
        """All as it was before us; False while something could not be given back."""
        leave_nics(host)
        give_back_values(host, originals, self._keeper)
        return not originals.held

    def _save(self) -> None:
        memory, state_dir = self._loop.memory, Path(self._config.settings.agent.state_dir)
        saved = Checkpoint(memory.online, memory.lent, learn.told(memory.interference.senses))
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
        self._supervisor.reloading()
        try:
            config = self._reload()
        except AgentError as error:
            self._supervisor.reloaded(str(error))
            self._telling.metrics.reloaded(ok=False)
            log.error("config.refused", why=str(error), hint=error.hint)
            return
        restart = fixed(config) != fixed(self._config)
        self._telling.metrics.reloaded(ok=True)
        self._config = config
        self._applications.rules = config.apps
        self._loop.take(config.policy, config.rules, config.settings.agent.fast_lane_s)
        self._in_line()
        self._supervisor.reloaded()
        log.info("config.reloaded", path=config.path or "", restart_needed_for_the_rest=restart)


def _remembered(saved: Checkpoint) -> Memory:
    interference = InterferenceMemory(senses=learn.restored(saved.baselines))
    return Memory(online=saved.online, lent=saved.lent, interference=interference)
