"""How the process itself is set up: all of the TOML that is neither Policy nor [[pods]], already checked.

Each field carries its bounds and the words that `check` prints.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from nodeagent.model.app import AppSettings
from nodeagent.model.controller import ControllerSettings
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.plan import Kind
from nodeagent.model.publish import PublishSettings


class Mode(enum.StrEnum):
    ENFORCE = "enforce"
    OBSERVE = "observe"


class Actuator(enum.StrEnum):
    """What `agent.enforce` names. CPU: quotas, weights and sets; the last three are for antagonists alone."""

    CPU = "cpu"
    NIC = "nic"
    MEMORY = "memory"
    IO = "io"
    FREEZE = "freeze"


_ACTUATORS = {
    Kind.NIC_RATE: Actuator.NIC,
    Kind.NIC_CEIL: Actuator.NIC,
    Kind.NET_CLASS: Actuator.NIC,
    Kind.MEMORY_HIGH: Actuator.MEMORY,
    Kind.IO_WEIGHT: Actuator.IO,
    Kind.FREEZE: Actuator.FREEZE,
}


def actuator_of(kind: Kind) -> Actuator:
    """Which of `agent.enforce` writes knobs of this kind."""
    return _ACTUATORS.get(kind, Actuator.CPU)


class OnExit(enum.StrEnum):
    RESTORE = "restore"
    KEEP = "keep"


class Level(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AgentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The loop and where it lives."""

    mode: Annotated[
        Mode, Meta(description="enforce: write, below `scope` only; observe: plan, write nothing")
    ] = Mode.ENFORCE
    enforce: Annotated[
        tuple[Actuator, ...],
        Meta(
            description="what may be written in mode enforce; memory, io and freeze: of Batch pods that "
            "disturb online ones. freeze stops a pod for moments: its peers may take it for dead"
        ),
    ] = (Actuator.CPU, Actuator.MEMORY, Actuator.IO)
    on_exit: Annotated[
        OnExit, Meta(description="restore: give all values back on stop; keep: leave them as they are")
    ] = OnExit.RESTORE
    tick_s: Annotated[float, Meta(ge=0.1, le=60.0, description="time between two ticks")] = 1.0
    fast_lane_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=60.0,
            description="time between two looks, within ticks, at whether LS pods wait for CPU or online use "
            "has risen, which calls the next tick at once; at least 0.02; 0 = off",
        ),
    ] = 0.1
    slow_tick_s: Annotated[
        float, Meta(ge=0.1, le=600.0, description="time between two readings of what changes slowly")
    ] = 5.0
    scan_s: Annotated[
        float, Meta(ge=1.0, le=3600.0, description="time between two full walks of the cgroup tree")
    ] = 30.0
    checkpoint_s: Annotated[
        float, Meta(ge=1.0, le=3600.0, description="time between two saves of the usage history")
    ] = 60.0
    realtime: Annotated[
        bool,
        Meta(
            description="where it is allowed, the loop's thread runs when it is due, before all others "
            "(SCHED_FIFO 1), for a few ms at most, while it would be late else; false: it waits for its turn"
        ),
    ] = True
    host_root: Annotated[
        str,
        Meta(min_length=1, max_length=4096, description="where the host's / is seen (/host in a container)"),
    ] = "/"
    state_dir: Annotated[
        str, Meta(min_length=2, max_length=4096, description="durable: lock, originals, history, journal")
    ] = "/var/lib/nodeagent"
    run_dir: Annotated[
        str, Meta(min_length=2, max_length=4096, description="volatile: socket, claims of `nodeagent exec`")
    ] = "/run/nodeagent"
    kubelet_dir: Annotated[
        str,
        Meta(
            max_length=4096, description='where the kubelet keeps its state (its --root-dir); "" = none here'
        ),
    ] = "/var/lib/kubelet"

    @property
    def control_address(self) -> str:
        """Where root asks the running agent to do something."""
        return f"unix:{self.run_dir}/control.sock"


class GrpcSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The service `NodeAgent`."""

    address: Annotated[
        str,
        Meta(
            max_length=300,
            description='unix:/path or a loopback host:port; "" = off; default: in agent.run_dir',
        ),
    ] = "unix:/run/nodeagent/nodeagent.sock"
    reflection: Annotated[bool, Meta(description="let clients ask which services there are")] = True
    heartbeat_s: Annotated[
        float, Meta(ge=1.0, le=600.0, description="a watcher hears at least this often, changed or not")
    ] = 10.0
    max_watchers: Annotated[
        int,
        Meta(
            ge=1,
            le=4096,
            description="WatchCapacity and WatchEvents streams at a time; 3/4 of them for one client",
        ),
    ] = 64
    max_message_bytes: Annotated[
        int, Meta(ge=4096, le=1 << 28, description="largest message sent or taken")
    ] = 4 << 20
    tls_address: Annotated[
        str, Meta(max_length=300, description='IP:PORT for mutual TLS, such as [::]:9466; "" = off')
    ] = ""
    tls_cert: Annotated[
        str, Meta(max_length=4096, description="PEM: the node's certificate, then its intermediates")
    ] = ""
    tls_key: Annotated[str, Meta(max_length=4096, description="PEM: its key, without a password")] = ""
    tls_ca: Annotated[
        str, Meta(max_length=4096, description="PEM: CAs, one of which clients' certificates must have")
    ] = ""
    readers: Annotated[
        tuple[str, ...],
        Meta(description='globs of names (SAN: DNS, URI, IP) that may ask; or "uri:GLOB", "dns:GLOB"'),
    ] = ()
    directors: Annotated[
        tuple[str, ...], Meta(description="the same, of those who may ask and give directives")
    ] = ()
    reader_uids: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=(1 << 32) - 2)], ...],
        Meta(description="who may ask on the unix socket, besides root; [] = whoever its mode lets in"),
    ] = ()
    director_uids: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=(1 << 32) - 2)], ...],
        Meta(description="who may give directives on the unix socket"),
    ] = (0,)
    calls_per_s: Annotated[
        float, Meta(ge=1.0, le=1e6, description="calls that all clients together may begin, on average")
    ] = 600.0
    peer_calls_per_s: Annotated[
        float, Meta(ge=1.0, le=1e6, description="the same for each client (name, user or address)")
    ] = 300.0
    max_connection_age_s: Annotated[
        float, Meta(ge=1.0, le=1e7, description="then a client connects, and is verified, anew")
    ] = 3600.0


class HttpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """/metrics, /livez and /readyz."""

    address: Annotated[str, Meta(max_length=300, description='host:port; "" = off')] = "127.0.0.1:9464"
    max_series: Annotated[
        int, Meta(ge=100, le=1_000_000, description="series in /metrics; what is dropped is counted")
    ] = 20_000


class JournalSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The record of ticks that `nodeagent replay` reads."""

    enabled: Annotated[bool, Meta(description="record each tick in the state directory")] = True
    max_bytes: Annotated[
        int, Meta(ge=1 << 20, le=1 << 40, description="all segments together; the oldest one goes first")
    ] = 64 << 20
    segment_bytes: Annotated[int, Meta(ge=1 << 16, le=1 << 32, description="one segment")] = 4 << 20


class DirectiveSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What directors may ask of this node for a time: ApplyDirective, and the controller's stream."""

    enabled: Annotated[bool, Meta(description="false: none is taken, and none is in force")] = True
    max_lease_s: Annotated[
        float,
        Meta(gt=0.0, le=2_592_000.0, description="longest lease; with it a directive ends by itself"),
    ] = 86_400.0
    kept: Annotated[
        int, Meta(ge=16, le=4096, description="directives remembered, so that one sent again changes nothing")
    ] = 256


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Structured events on standard error."""

    level: Annotated[Level, Meta(description="least level that is logged")] = Level.INFO


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """TOML sections have the names of these fields: [agent], [kubernetes], [grpc] and so on."""

    agent: AgentSettings = AgentSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    grpc: GrpcSettings = GrpcSettings()
    controller: ControllerSettings = ControllerSettings()
    http: HttpSettings = HttpSettings()
    journal: JournalSettings = JournalSettings()
    publish: PublishSettings = PublishSettings()
    directives: DirectiveSettings = DirectiveSettings()
    app_signals: AppSettings = AppSettings()
    log: LogSettings = LogSettings()
