"""The daemon: puts the parts together, runs the loop until a signal, and puts everything back.

Order matters: lock, ledger, host, servers; and on the way out values first, then what is only told.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import structlog

from nodeagent import __version__, checkpoint
from nodeagent.config import Config
from nodeagent.core.histogram import CPU, MEMORY
from nodeagent.host import Host
from nodeagent.journal import Journal
from nodeagent.lock import Lock
from nodeagent.loop import Loop, Writer, write_nothing
from nodeagent.model.decision import Checkpoint, Memory, Tick
from nodeagent.model.errors import AgentError
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, Mode, OnExit
from nodeagent.originals import Originals
from nodeagent.report.events import events
from nodeagent.report.http import HttpServer
from nodeagent.report.metrics import Metrics
from nodeagent.restore import give_back

GC_THRESHOLDS = (50_000, 50, 100)  # ticks make little garbage; a full collection would make a tick late
log = structlog.get_logger()


class Agent:
    """One running daemon. `reload` gives the configuration anew; `show` draws a tick, if there is a screen."""

    def __init__(
        self, config: Config, reload: Callable[[], Config], show: Callable[[Tick, float], None] | None
    ) -> None:
        self._config = config
        self._reload = reload
        self._show = show
        self._before: Tick | None = None
        self._signals: list[int] = []

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. AgentError when it cannot start; a bug crashes, the next start mends."""
        settings = self._config.settings
        with ExitStack() as stack:
            lock = Lock(settings.agent.state_dir)
            lock.acquire()
            stack.callback(lock.release)
            wake = stack.enter_context(_signals(self._signals))
            host = Host(settings.agent, self._config.rules, self._config.policy.pressure.ls_cpu_stall_ratio)
            stack.callback(host.close)
            originals = Originals(settings.agent.state_dir, host.boot_id)
            stack.callback(originals.close)
            self._assemble(stack, host, originals)
            self._started(host)
            try:
                self._turn(wake)
            finally:
                self._stop(host, originals)

    def _assemble(self, stack: ExitStack, host: Host, originals: Originals) -> None:
        settings = self._config.settings
        state_dir = Path(settings.agent.state_dir)
        saved, warning = checkpoint.load(state_dir, CPU.buckets, MEMORY.buckets)
        if warning:
            log.warning("checkpoint.refused", why=warning)
        self._writes = settings.agent.mode is Mode.ENFORCE and Actuator.CPU in settings.agent.enforce
        self._metrics = Metrics(max_series=settings.http.max_series)
        self._journal = Journal(state_dir, settings.journal.max_bytes, settings.journal.segment_bytes)
        stack.callback(self._journal.close)
        publish = self._serve(stack)
        self._loop = Loop(
            host,
            originals,
            Writer(host, originals) if self._writes else write_nothing,
            policy=self._config.policy,
            memory=Memory(online=saved.online, lent=saved.lent),
            record=self._record,
            reports=(self._observe, *publish, *((self._show,) if self._show else ())),
            skipped=self._skipped,
        )
        self._originals = originals

    def _serve(self, stack: ExitStack) -> list[Callable[[Tick, float], None]]:
        settings, publish = self._config.settings, []
        if settings.grpc.address:
            from nodeagent.rpc.server import RpcServer  # noqa: PLC0415  grpc takes 20 MiB

            rpc = RpcServer(
                settings.grpc.address,
                hostname=socket.gethostname(),
                version=__version__,
                heartbeat_s=settings.grpc.heartbeat_s,
                max_message_bytes=settings.grpc.max_message_bytes,
                max_watchers=settings.grpc.max_watchers,
                reflection=settings.grpc.reflection,
            )
            os.makedirs(settings.agent.run_dir, mode=0o755, exist_ok=True)
            rpc.start()
            stack.callback(rpc.stop)
            publish.append(lambda tick, _: rpc.publish(tick))
            log.info("grpc.listening", address=rpc.address)
        if settings.http.address:
            http = HttpServer(settings.http.address, self._metrics, tick_s=settings.agent.tick_s)
            http.start()
            stack.callback(http.stop)
            publish.append(lambda tick, _: http.publish(tick))
            log.info("http.listening", address=http.address)
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
        if not self._writes and self._originals.held:
            self._give_back(host)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _turn(self, wake: socket.socket) -> None:
        due = time.monotonic()
        saved_at = due
        reason = "timer"
        while signal.SIGTERM not in self._signals and signal.SIGINT not in self._signals:
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._take_new_config()
            self._loop.tick(reason)
            tick_s = self._config.settings.agent.tick_s
            now = time.monotonic()
            while due <= now:
                due += tick_s
            if now - saved_at >= self._config.settings.agent.checkpoint_s:
                saved_at = now
                self._save()
            reason = self._loop.wait(due, (wake.fileno(),))
            if reason == "signal":
                wake.recv(64)

    def _stop(self, host: Host, originals: Originals) -> None:
        keep = self._config.settings.agent.on_exit is OnExit.KEEP
        if self._writes and not keep:
            self._give_back(host)
        self._save()
        log.info("agent.stopped", kept=len(originals.held))

    def _give_back(self, host: Host) -> None:
        try:
            done = give_back(self._originals, host.knobs)
        except AgentError as error:
            log.error("giveback.failed", error=str(error), hint="nodeagent restore")
            return
        for knob, why in done.failed:
            log.warning("giveback.refused", knob=str(knob), error=why)
        for reading in done.left:
            log.warning("giveback.left", knob=str(reading.knob), found=reading.actual, ours=reading.written)
        log.info("giveback.done", restored=len(done.put_back), left=len(done.left), gone=len(done.gone))

    def _record(self, tick: Tick, policy: Policy, memory: Memory) -> None:
        if not self._config.settings.journal.enabled:
            return
        was = self._journal.stopped
        self._journal.append(tick, policy, memory)
        if self._journal.stopped and not was:
            log.warning("journal.stopped", why=self._journal.stopped)
        elif was and not self._journal.stopped:
            log.info("journal.resumed")

    def _observe(self, tick: Tick, duration_s: float) -> None:
        self._metrics.observe_tick(tick, duration_s)
        self._metrics.observe_journal(
            self._journal.bytes, self._journal.ticks_written, bool(self._journal.stopped)
        )
        for warning in self._originals.warnings:
            log.warning("originals", why=warning)
        self._originals.warnings.clear()
        for event in events(self._before, tick):
            getattr(log, event.level)(event.name, **event.keys)
        self._before = tick

    def _skipped(self, error: AgentError) -> None:
        self._metrics.observe_skipped()
        log.warning("tick.skipped", why=str(error), hint=error.hint)

    def _save(self) -> None:
        memory = self._loop.memory
        try:
            checkpoint.save(
                Path(self._config.settings.agent.state_dir), Checkpoint(memory.online, memory.lent)
            )
        except AgentError as error:
            log.warning("checkpoint.failed", why=str(error), hint=error.hint)

    def _take_new_config(self) -> None:
        """Take the policy, the rules and the pace anew; a bad file is refused and the old one stays."""
        try:
            config = self._reload()
        except AgentError as error:
            self._metrics.observe_reload(False)
            log.error("config.refused", why=str(error), hint=error.hint)
            return
        fixed = _fixed(config) != _fixed(self._config)
        self._metrics.observe_reload(True)
        self._config = config
        self._loop.take(config.policy, config.rules)
        log.info("config.reloaded", path=config.path or "", restart_needed_for_the_rest=fixed)


def _fixed(config: Config) -> tuple[object, ...]:
    """What only a restart changes."""
    s = config.settings
    agent = s.agent
    return (
        agent.mode,
        agent.enforce,
        agent.host_root,
        agent.state_dir,
        agent.run_dir,
        s.grpc,
        s.http,
        s.journal,
    )


class _signals:  # noqa: N801  a context manager that reads as a word
    """Collect SIGTERM, SIGINT and SIGHUP in a list, and make a socket readable at each."""

    def __init__(self, into: list[int]) -> None:
        self._into = into
        self._old: dict[int, object] = {}

    def __enter__(self) -> socket.socket:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._old[number] = signal.signal(number, self._take)
        return self._reader

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)  # type: ignore[arg-type]  # what signal.signal gave
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._into.append(number)
