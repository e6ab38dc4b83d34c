import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nodeagent.v1 import directive_pb2 as _directive_pb2
from nodeagent.v1 import nodeagent_pb2 as _nodeagent_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportRequest(_message.Message):
    __slots__ = ("full", "delta", "heartbeat", "directive_result")
    FULL_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVE_RESULT_FIELD_NUMBER: _ClassVar[int]
    full: NodeStatus
    delta: NodeDelta
    heartbeat: Heartbeat
    directive_result: DirectiveResult
    def __init__(self, full: _Optional[_Union[NodeStatus, _Mapping]] = ..., delta: _Optional[_Union[NodeDelta, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., directive_result: _Optional[_Union[DirectiveResult, _Mapping]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node_name", "agent_version", "mode", "capacity", "total_cores", "total_bytes", "pods", "batch_limit_cores", "signals", "directives", "slowed_pods")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_CORES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    BATCH_LIMIT_CORES_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    SLOWED_PODS_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    agent_version: str
    mode: _directive_pb2.Mode
    capacity: _nodeagent_pb2.Capacity
    total_cores: float
    total_bytes: int
    pods: PodCounts
    batch_limit_cores: float
    signals: _containers.RepeatedCompositeFieldContainer[_nodeagent_pb2.Signal]
    directives: _containers.RepeatedCompositeFieldContainer[_directive_pb2.DirectiveStatus]
    slowed_pods: int
    def __init__(self, node_name: _Optional[str] = ..., agent_version: _Optional[str] = ..., mode: _Optional[_Union[_directive_pb2.Mode, str]] = ..., capacity: _Optional[_Union[_nodeagent_pb2.Capacity, _Mapping]] = ..., total_cores: _Optional[float] = ..., total_bytes: _Optional[int] = ..., pods: _Optional[_Union[PodCounts, _Mapping]] = ..., batch_limit_cores: _Optional[float] = ..., signals: _Optional[_Iterable[_Union[_nodeagent_pb2.Signal, _Mapping]]] = ..., directives: _Optional[_Iterable[_Union[_directive_pb2.DirectiveStatus, _Mapping]]] = ..., slowed_pods: _Optional[int] = ...) -> None: ...

class NodeDelta(_message.Message):
    __slots__ = ("capacity", "pods", "batch_limit", "signals", "directives", "mode", "slowed_pods")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    BATCH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SLOWED_PODS_FIELD_NUMBER: _ClassVar[int]
    capacity: _nodeagent_pb2.Capacity
    pods: PodCounts
    batch_limit: BatchLimit
    signals: SignalList
    directives: DirectiveList
    mode: _directive_pb2.Mode
    slowed_pods: int
    def __init__(self, capacity: _Optional[_Union[_nodeagent_pb2.Capacity, _Mapping]] = ..., pods: _Optional[_Union[PodCounts, _Mapping]] = ..., batch_limit: _Optional[_Union[BatchLimit, _Mapping]] = ..., signals: _Optional[_Union[SignalList, _Mapping]] = ..., directives: _Optional[_Union[DirectiveList, _Mapping]] = ..., mode: _Optional[_Union[_directive_pb2.Mode, str]] = ..., slowed_pods: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("seq", "observed_at", "valid_until")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    seq: int
    observed_at: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    def __init__(self, seq: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PodCounts(_message.Message):
    __slots__ = ("ls", "mid", "batch")
    LS_FIELD_NUMBER: _ClassVar[int]
    MID_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ls: int
    mid: int
    batch: int
    def __init__(self, ls: _Optional[int] = ..., mid: _Optional[int] = ..., batch: _Optional[int] = ...) -> None: ...

class BatchLimit(_message.Message):
    __slots__ = ("cores",)
    CORES_FIELD_NUMBER: _ClassVar[int]
    cores: float
    def __init__(self, cores: _Optional[float] = ...) -> None: ...

class SignalList(_message.Message):
    __slots__ = ("signals",)
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    signals: _containers.RepeatedCompositeFieldContainer[_nodeagent_pb2.Signal]
    def __init__(self, signals: _Optional[_Iterable[_Union[_nodeagent_pb2.Signal, _Mapping]]] = ...) -> None: ...

class DirectiveList(_message.Message):
    __slots__ = ("directives",)
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    directives: _containers.RepeatedCompositeFieldContainer[_directive_pb2.DirectiveStatus]
    def __init__(self, directives: _Optional[_Iterable[_Union[_directive_pb2.DirectiveStatus, _Mapping]]] = ...) -> None: ...

class DirectiveResult(_message.Message):
    __slots__ = ("id", "code", "message", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: str
    code: int
    message: str
    status: _directive_pb2.DirectiveStatus
    def __init__(self, id: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., status: _Optional[_Union[_directive_pb2.DirectiveStatus, _Mapping]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("directive", "resync")
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    RESYNC_FIELD_NUMBER: _ClassVar[int]
    directive: _directive_pb2.Directive
    resync: Resync
    def __init__(self, directive: _Optional[_Union[_directive_pb2.Directive, _Mapping]] = ..., resync: _Optional[_Union[Resync, _Mapping]] = ...) -> None: ...

class Resync(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetViewRequest(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: bool
    def __init__(self, nodes: _Optional[bool] = ...) -> None: ...

class GetViewResponse(_message.Message):
    __slots__ = ("view",)
    VIEW_FIELD_NUMBER: _ClassVar[int]
    view: ClusterView
    def __init__(self, view: _Optional[_Union[ClusterView, _Mapping]] = ...) -> None: ...

class WatchViewRequest(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: bool
    def __init__(self, nodes: _Optional[bool] = ...) -> None: ...

class WatchViewResponse(_message.Message):
    __slots__ = ("view",)
    VIEW_FIELD_NUMBER: _ClassVar[int]
    view: ClusterView
    def __init__(self, view: _Optional[_Union[ClusterView, _Mapping]] = ...) -> None: ...

class SendDirectiveRequest(_message.Message):
    __slots__ = ("node_name", "directive")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    directive: _directive_pb2.Directive
    def __init__(self, node_name: _Optional[str] = ..., directive: _Optional[_Union[_directive_pb2.Directive, _Mapping]] = ...) -> None: ...

class SendDirectiveResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _directive_pb2.DirectiveStatus
    def __init__(self, status: _Optional[_Union[_directive_pb2.DirectiveStatus, _Mapping]] = ...) -> None: ...

class ClusterView(_message.Message):
    __slots__ = ("made_at", "available_cores", "available_bytes", "zones", "fresh_nodes", "stale_nodes", "withdrawn_nodes", "nodes")
    MADE_AT_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_CORES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ZONES_FIELD_NUMBER: _ClassVar[int]
    FRESH_NODES_FIELD_NUMBER: _ClassVar[int]
    STALE_NODES_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    made_at: _timestamp_pb2.Timestamp
    available_cores: float
    available_bytes: int
    zones: _containers.RepeatedCompositeFieldContainer[ZoneSum]
    fresh_nodes: int
    stale_nodes: int
    withdrawn_nodes: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeView]
    def __init__(self, made_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., available_cores: _Optional[float] = ..., available_bytes: _Optional[int] = ..., zones: _Optional[_Iterable[_Union[ZoneSum, _Mapping]]] = ..., fresh_nodes: _Optional[int] = ..., stale_nodes: _Optional[int] = ..., withdrawn_nodes: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeView, _Mapping]]] = ...) -> None: ...

class ZoneSum(_message.Message):
    __slots__ = ("numa_node", "available_cores", "available_bytes", "nodes")
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_CORES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    numa_node: int
    available_cores: float
    available_bytes: int
    nodes: int
    def __init__(self, numa_node: _Optional[int] = ..., available_cores: _Optional[float] = ..., available_bytes: _Optional[int] = ..., nodes: _Optional[int] = ...) -> None: ...

class NodeView(_message.Message):
    __slots__ = ("node_name", "status", "connected", "stale", "heard_at")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    HEARD_AT_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    status: NodeStatus
    connected: bool
    stale: bool
    heard_at: _timestamp_pb2.Timestamp
    def __init__(self, node_name: _Optional[str] = ..., status: _Optional[_Union[NodeStatus, _Mapping]] = ..., connected: _Optional[bool] = ..., stale: _Optional[bool] = ..., heard_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
