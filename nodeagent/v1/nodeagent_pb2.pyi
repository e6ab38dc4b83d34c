import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nodeagent.v1 import directive_pb2 as _directive_pb2
from nodeagent.v1 import event_pb2 as _event_pb2
from nodeagent.v1 import explain_pb2 as _explain_pb2
from nodeagent.v1 import interference_pb2 as _interference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpdateReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UPDATE_REASON_UNSPECIFIED: _ClassVar[UpdateReason]
    UPDATE_REASON_SNAPSHOT: _ClassVar[UpdateReason]
    UPDATE_REASON_CHANGE: _ClassVar[UpdateReason]
    UPDATE_REASON_HEARTBEAT: _ClassVar[UpdateReason]

class PodListState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POD_LIST_STATE_UNSPECIFIED: _ClassVar[PodListState]
    POD_LIST_STATE_WAITING: _ClassVar[PodListState]
    POD_LIST_STATE_FRESH: _ClassVar[PodListState]
    POD_LIST_STATE_STALE: _ClassVar[PodListState]
    POD_LIST_STATE_EXPIRED: _ClassVar[PodListState]
    POD_LIST_STATE_NEVER: _ClassVar[PodListState]

class NicRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NIC_ROLE_UNSPECIFIED: _ClassVar[NicRole]
    NIC_ROLE_SHARED: _ClassVar[NicRole]
    NIC_ROLE_ONLINE: _ClassVar[NicRole]
    NIC_ROLE_BULK: _ClassVar[NicRole]

class NicScheduler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NIC_SCHEDULER_UNSPECIFIED: _ClassVar[NicScheduler]
    NIC_SCHEDULER_HTB: _ClassVar[NicScheduler]
    NIC_SCHEDULER_EDT: _ClassVar[NicScheduler]
    NIC_SCHEDULER_VETH: _ClassVar[NicScheduler]
    NIC_SCHEDULER_OBSERVE: _ClassVar[NicScheduler]

class Classifier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLASSIFIER_UNSPECIFIED: _ClassVar[Classifier]
    CLASSIFIER_NFT: _ClassVar[Classifier]
    CLASSIFIER_BPF: _ClassVar[Classifier]
    CLASSIFIER_NET_CLS: _ClassVar[Classifier]
    CLASSIFIER_U32: _ClassVar[Classifier]
    CLASSIFIER_NONE: _ClassVar[Classifier]

class TrafficWay(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAFFIC_WAY_UNSPECIFIED: _ClassVar[TrafficWay]
    TRAFFIC_WAY_CGROUP: _ClassVar[TrafficWay]
    TRAFFIC_WAY_ADDRESS: _ClassVar[TrafficWay]
    TRAFFIC_WAY_DEFAULT: _ClassVar[TrafficWay]
    TRAFFIC_WAY_UNCLASSIFIED: _ClassVar[TrafficWay]

class Pool(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOL_UNSPECIFIED: _ClassVar[Pool]
    POOL_BOUND: _ClassVar[Pool]
    POOL_SHARED: _ClassVar[Pool]
    POOL_MID: _ClassVar[Pool]
    POOL_BATCH: _ClassVar[Pool]
    POOL_LEFT_ALONE: _ClassVar[Pool]

class DeviceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_KIND_UNSPECIFIED: _ClassVar[DeviceKind]
    DEVICE_KIND_NIC: _ClassVar[DeviceKind]
    DEVICE_KIND_GPU: _ClassVar[DeviceKind]

class Qos(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QOS_UNSPECIFIED: _ClassVar[Qos]
    QOS_LS: _ClassVar[Qos]
    QOS_MID: _ClassVar[Qos]
    QOS_BATCH: _ClassVar[Qos]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_MEDIUM: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class KnobKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KNOB_KIND_UNSPECIFIED: _ClassVar[KnobKind]
    KNOB_KIND_CPU_QUOTA: _ClassVar[KnobKind]
    KNOB_KIND_CPU_WEIGHT: _ClassVar[KnobKind]
    KNOB_KIND_CPUS: _ClassVar[KnobKind]
    KNOB_KIND_MEMS: _ClassVar[KnobKind]
    KNOB_KIND_MEMORY_MIGRATE: _ClassVar[KnobKind]
    KNOB_KIND_CPU_BURST: _ClassVar[KnobKind]
    KNOB_KIND_NIC_RATE: _ClassVar[KnobKind]
    KNOB_KIND_NIC_CEIL: _ClassVar[KnobKind]
    KNOB_KIND_NET_CLASS: _ClassVar[KnobKind]
    KNOB_KIND_MEMORY_HIGH: _ClassVar[KnobKind]
    KNOB_KIND_IO_WEIGHT: _ClassVar[KnobKind]
    KNOB_KIND_FREEZE: _ClassVar[KnobKind]
UPDATE_REASON_UNSPECIFIED: UpdateReason
UPDATE_REASON_SNAPSHOT: UpdateReason
UPDATE_REASON_CHANGE: UpdateReason
UPDATE_REASON_HEARTBEAT: UpdateReason
POD_LIST_STATE_UNSPECIFIED: PodListState
POD_LIST_STATE_WAITING: PodListState
POD_LIST_STATE_FRESH: PodListState
POD_LIST_STATE_STALE: PodListState
POD_LIST_STATE_EXPIRED: PodListState
POD_LIST_STATE_NEVER: PodListState
NIC_ROLE_UNSPECIFIED: NicRole
NIC_ROLE_SHARED: NicRole
NIC_ROLE_ONLINE: NicRole
NIC_ROLE_BULK: NicRole
NIC_SCHEDULER_UNSPECIFIED: NicScheduler
NIC_SCHEDULER_HTB: NicScheduler
NIC_SCHEDULER_EDT: NicScheduler
NIC_SCHEDULER_VETH: NicScheduler
NIC_SCHEDULER_OBSERVE: NicScheduler
CLASSIFIER_UNSPECIFIED: Classifier
CLASSIFIER_NFT: Classifier
CLASSIFIER_BPF: Classifier
CLASSIFIER_NET_CLS: Classifier
CLASSIFIER_U32: Classifier
CLASSIFIER_NONE: Classifier
TRAFFIC_WAY_UNSPECIFIED: TrafficWay
TRAFFIC_WAY_CGROUP: TrafficWay
TRAFFIC_WAY_ADDRESS: TrafficWay
TRAFFIC_WAY_DEFAULT: TrafficWay
TRAFFIC_WAY_UNCLASSIFIED: TrafficWay
POOL_UNSPECIFIED: Pool
POOL_BOUND: Pool
POOL_SHARED: Pool
POOL_MID: Pool
POOL_BATCH: Pool
POOL_LEFT_ALONE: Pool
DEVICE_KIND_UNSPECIFIED: DeviceKind
DEVICE_KIND_NIC: DeviceKind
DEVICE_KIND_GPU: DeviceKind
QOS_UNSPECIFIED: Qos
QOS_LS: Qos
QOS_MID: Qos
QOS_BATCH: Qos
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_MEDIUM: Priority
PRIORITY_HIGH: Priority
KNOB_KIND_UNSPECIFIED: KnobKind
KNOB_KIND_CPU_QUOTA: KnobKind
KNOB_KIND_CPU_WEIGHT: KnobKind
KNOB_KIND_CPUS: KnobKind
KNOB_KIND_MEMS: KnobKind
KNOB_KIND_MEMORY_MIGRATE: KnobKind
KNOB_KIND_CPU_BURST: KnobKind
KNOB_KIND_NIC_RATE: KnobKind
KNOB_KIND_NIC_CEIL: KnobKind
KNOB_KIND_NET_CLASS: KnobKind
KNOB_KIND_MEMORY_HIGH: KnobKind
KNOB_KIND_IO_WEIGHT: KnobKind
KNOB_KIND_FREEZE: KnobKind

class DefragmentRequest(_message.Message):
    __slots__ = ("dry_run",)
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    def __init__(self, dry_run: _Optional[bool] = ...) -> None: ...

class DefragmentResponse(_message.Message):
    __slots__ = ("dry_run", "written", "moves", "freed_numa_nodes", "bound_pods", "unplaced_pods", "errors")
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    FREED_NUMA_NODES_FIELD_NUMBER: _ClassVar[int]
    BOUND_PODS_FIELD_NUMBER: _ClassVar[int]
    UNPLACED_PODS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    written: bool
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    freed_numa_nodes: str
    bound_pods: int
    unplaced_pods: int
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dry_run: _Optional[bool] = ..., written: _Optional[bool] = ..., moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ..., freed_numa_nodes: _Optional[str] = ..., bound_pods: _Optional[int] = ..., unplaced_pods: _Optional[int] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("pod_uid", "pod_name", "old_cpus", "new_cpus", "old_mems", "new_mems")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    OLD_CPUS_FIELD_NUMBER: _ClassVar[int]
    NEW_CPUS_FIELD_NUMBER: _ClassVar[int]
    OLD_MEMS_FIELD_NUMBER: _ClassVar[int]
    NEW_MEMS_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    pod_name: str
    old_cpus: str
    new_cpus: str
    old_mems: str
    new_mems: str
    def __init__(self, pod_uid: _Optional[str] = ..., pod_name: _Optional[str] = ..., old_cpus: _Optional[str] = ..., new_cpus: _Optional[str] = ..., old_mems: _Optional[str] = ..., new_mems: _Optional[str] = ...) -> None: ...

class ListInterferenceRequest(_message.Message):
    __slots__ = ("open_only", "victim")
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    VICTIM_FIELD_NUMBER: _ClassVar[int]
    open_only: bool
    victim: str
    def __init__(self, open_only: _Optional[bool] = ..., victim: _Optional[str] = ...) -> None: ...

class ListInterferenceResponse(_message.Message):
    __slots__ = ("seq", "observed_at", "episodes", "restraints", "rejections", "left_out")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    RESTRAINTS_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    observed_at: _timestamp_pb2.Timestamp
    episodes: _containers.RepeatedCompositeFieldContainer[_interference_pb2.Episode]
    restraints: _containers.RepeatedCompositeFieldContainer[_interference_pb2.Restraint]
    rejections: _containers.RepeatedCompositeFieldContainer[_interference_pb2.Rejection]
    left_out: int
    def __init__(self, seq: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., episodes: _Optional[_Iterable[_Union[_interference_pb2.Episode, _Mapping]]] = ..., restraints: _Optional[_Iterable[_Union[_interference_pb2.Restraint, _Mapping]]] = ..., rejections: _Optional[_Iterable[_Union[_interference_pb2.Rejection, _Mapping]]] = ..., left_out: _Optional[int] = ...) -> None: ...

class GetCapacityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCapacityResponse(_message.Message):
    __slots__ = ("capacity",)
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    capacity: Capacity
    def __init__(self, capacity: _Optional[_Union[Capacity, _Mapping]] = ...) -> None: ...

class WatchCapacityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchCapacityResponse(_message.Message):
    __slots__ = ("capacity", "reason")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    capacity: Capacity
    reason: UpdateReason
    def __init__(self, capacity: _Optional[_Union[Capacity, _Mapping]] = ..., reason: _Optional[_Union[UpdateReason, str]] = ...) -> None: ...

class GetNodeReportRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeReportResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: NodeReport
    def __init__(self, report: _Optional[_Union[NodeReport, _Mapping]] = ...) -> None: ...

class ListPodsRequest(_message.Message):
    __slots__ = ("qos", "page_size", "page_token")
    QOS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    qos: _containers.RepeatedScalarFieldContainer[Qos]
    page_size: int
    page_token: str
    def __init__(self, qos: _Optional[_Iterable[_Union[Qos, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPodsResponse(_message.Message):
    __slots__ = ("seq", "observed_at", "pods", "next_page_token")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    seq: int
    observed_at: _timestamp_pb2.Timestamp
    pods: _containers.RepeatedCompositeFieldContainer[PodStatus]
    next_page_token: str
    def __init__(self, seq: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pods: _Optional[_Iterable[_Union[PodStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PodStatus(_message.Message):
    __slots__ = ("pod", "cpu_cores", "memory_bytes", "cpu_stall_ratio", "throttled_ratio", "settings", "signals")
    POD_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_STALL_RATIO_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_RATIO_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    pod: Pod
    cpu_cores: float
    memory_bytes: int
    cpu_stall_ratio: float
    throttled_ratio: float
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    def __init__(self, pod: _Optional[_Union[Pod, _Mapping]] = ..., cpu_cores: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., cpu_stall_ratio: _Optional[float] = ..., throttled_ratio: _Optional[float] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("capacity", "pod")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    capacity: CapacitySubject
    pod: str
    def __init__(self, capacity: _Optional[_Union[CapacitySubject, _Mapping]] = ..., pod: _Optional[str] = ...) -> None: ...

class CapacitySubject(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("explanation",)
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    explanation: _explain_pb2.Explanation
    def __init__(self, explanation: _Optional[_Union[_explain_pb2.Explanation, _Mapping]] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("topics", "after_number", "run_id", "least_level")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    AFTER_NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEAST_LEVEL_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[_event_pb2.EventTopic]
    after_number: int
    run_id: str
    least_level: _event_pb2.EventLevel
    def __init__(self, topics: _Optional[_Iterable[_Union[_event_pb2.EventTopic, str]]] = ..., after_number: _Optional[int] = ..., run_id: _Optional[str] = ..., least_level: _Optional[_Union[_event_pb2.EventLevel, str]] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("events", "missed", "run_id", "caught_up")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    missed: int
    run_id: str
    caught_up: bool
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ..., missed: _Optional[int] = ..., run_id: _Optional[str] = ..., caught_up: _Optional[bool] = ...) -> None: ...

class ApplyDirectiveRequest(_message.Message):
    __slots__ = ("directive", "dry_run")
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    directive: _directive_pb2.Directive
    dry_run: bool
    def __init__(self, directive: _Optional[_Union[_directive_pb2.Directive, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ApplyDirectiveResponse(_message.Message):
    __slots__ = ("status", "already_taken")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ALREADY_TAKEN_FIELD_NUMBER: _ClassVar[int]
    status: _directive_pb2.DirectiveStatus
    already_taken: bool
    def __init__(self, status: _Optional[_Union[_directive_pb2.DirectiveStatus, _Mapping]] = ..., already_taken: _Optional[bool] = ...) -> None: ...

class ListDirectivesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDirectivesResponse(_message.Message):
    __slots__ = ("directives",)
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    directives: _containers.RepeatedCompositeFieldContainer[_directive_pb2.DirectiveStatus]
    def __init__(self, directives: _Optional[_Iterable[_Union[_directive_pb2.DirectiveStatus, _Mapping]]] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("seq", "boot_id", "observed_at", "valid_until", "cpu", "memory", "zones", "confidence_ratio", "withdrawn", "lent")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    ZONES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_RATIO_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    boot_id: str
    observed_at: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    cpu: CpuAmount
    memory: MemoryAmount
    zones: _containers.RepeatedCompositeFieldContainer[Zone]
    confidence_ratio: float
    withdrawn: str
    lent: Lent
    def __init__(self, seq: _Optional[int] = ..., boot_id: _Optional[str] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cpu: _Optional[_Union[CpuAmount, _Mapping]] = ..., memory: _Optional[_Union[MemoryAmount, _Mapping]] = ..., zones: _Optional[_Iterable[_Union[Zone, _Mapping]]] = ..., confidence_ratio: _Optional[float] = ..., withdrawn: _Optional[str] = ..., lent: _Optional[_Union[Lent, _Mapping]] = ...) -> None: ...

class Zone(_message.Message):
    __slots__ = ("numa_node", "cpu", "memory")
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    numa_node: int
    cpu: CpuAmount
    memory: MemoryAmount
    def __init__(self, numa_node: _Optional[int] = ..., cpu: _Optional[_Union[CpuAmount, _Mapping]] = ..., memory: _Optional[_Union[MemoryAmount, _Mapping]] = ...) -> None: ...

class CpuAmount(_message.Message):
    __slots__ = ("available_cores", "computed_cores", "terms")
    AVAILABLE_CORES_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_CORES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    available_cores: float
    computed_cores: float
    terms: _containers.RepeatedCompositeFieldContainer[CpuTerm]
    def __init__(self, available_cores: _Optional[float] = ..., computed_cores: _Optional[float] = ..., terms: _Optional[_Iterable[_Union[CpuTerm, _Mapping]]] = ...) -> None: ...

class CpuTerm(_message.Message):
    __slots__ = ("name", "cores", "ratio", "source", "age_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    cores: float
    ratio: float
    source: str
    age_s: float
    def __init__(self, name: _Optional[str] = ..., cores: _Optional[float] = ..., ratio: _Optional[float] = ..., source: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class MemoryAmount(_message.Message):
    __slots__ = ("available_bytes", "computed_bytes", "terms")
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    available_bytes: int
    computed_bytes: int
    terms: _containers.RepeatedCompositeFieldContainer[MemoryTerm]
    def __init__(self, available_bytes: _Optional[int] = ..., computed_bytes: _Optional[int] = ..., terms: _Optional[_Iterable[_Union[MemoryTerm, _Mapping]]] = ...) -> None: ...

class MemoryTerm(_message.Message):
    __slots__ = ("name", "bytes", "ratio", "source", "age_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    ratio: float
    source: str
    age_s: float
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., ratio: _Optional[float] = ..., source: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class Lent(_message.Message):
    __slots__ = ("used_core_s", "offered_core_s")
    USED_CORE_S_FIELD_NUMBER: _ClassVar[int]
    OFFERED_CORE_S_FIELD_NUMBER: _ClassVar[int]
    used_core_s: float
    offered_core_s: float
    def __init__(self, used_core_s: _Optional[float] = ..., offered_core_s: _Optional[float] = ...) -> None: ...

class NodeReport(_message.Message):
    __slots__ = ("seq", "observed_at", "woken_by", "node", "pods", "capacity", "batch_limit_cores", "batch_limit_why", "signals", "plan", "yielded", "changes", "outcomes", "drifts", "misses", "placement", "owners_unknown", "network", "directives", "mode", "pod_list", "interference")
    class MissesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    WOKEN_BY_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    BATCH_LIMIT_CORES_FIELD_NUMBER: _ClassVar[int]
    BATCH_LIMIT_WHY_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    YIELDED_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    DRIFTS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    OWNERS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    POD_LIST_FIELD_NUMBER: _ClassVar[int]
    INTERFERENCE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    observed_at: _timestamp_pb2.Timestamp
    woken_by: str
    node: Node
    pods: _containers.RepeatedCompositeFieldContainer[Pod]
    capacity: Capacity
    batch_limit_cores: float
    batch_limit_why: str
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    plan: _containers.RepeatedCompositeFieldContainer[Setting]
    yielded: _containers.RepeatedCompositeFieldContainer[Knob]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    drifts: _containers.RepeatedCompositeFieldContainer[Drift]
    misses: _containers.ScalarMap[str, int]
    placement: Placement
    owners_unknown: _containers.RepeatedScalarFieldContainer[str]
    network: Network
    directives: _containers.RepeatedCompositeFieldContainer[_directive_pb2.DirectiveStatus]
    mode: _directive_pb2.Mode
    pod_list: PodList
    interference: _interference_pb2.Interference
    def __init__(self, seq: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., woken_by: _Optional[str] = ..., node: _Optional[_Union[Node, _Mapping]] = ..., pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., batch_limit_cores: _Optional[float] = ..., batch_limit_why: _Optional[str] = ..., signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ..., plan: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., yielded: _Optional[_Iterable[_Union[Knob, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., drifts: _Optional[_Iterable[_Union[Drift, _Mapping]]] = ..., misses: _Optional[_Mapping[str, int]] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., owners_unknown: _Optional[_Iterable[str]] = ..., network: _Optional[_Union[Network, _Mapping]] = ..., directives: _Optional[_Iterable[_Union[_directive_pb2.DirectiveStatus, _Mapping]]] = ..., mode: _Optional[_Union[_directive_pb2.Mode, str]] = ..., pod_list: _Optional[_Union[PodList, _Mapping]] = ..., interference: _Optional[_Union[_interference_pb2.Interference, _Mapping]] = ...) -> None: ...

class PodList(_message.Message):
    __slots__ = ("source", "state", "age_s", "pod_count", "error")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    POD_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    source: str
    state: PodListState
    age_s: float
    pod_count: int
    error: str
    def __init__(self, source: _Optional[str] = ..., state: _Optional[_Union[PodListState, str]] = ..., age_s: _Optional[float] = ..., pod_count: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("nics", "classifier", "classifier_why", "cgroup_count", "address_count", "unclassified", "failed")
    NICS_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_WHY_FIELD_NUMBER: _ClassVar[int]
    CGROUP_COUNT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCLASSIFIED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    nics: _containers.RepeatedCompositeFieldContainer[Nic]
    classifier: Classifier
    classifier_why: str
    cgroup_count: int
    address_count: int
    unclassified: _containers.RepeatedCompositeFieldContainer[Unclassified]
    failed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nics: _Optional[_Iterable[_Union[Nic, _Mapping]]] = ..., classifier: _Optional[_Union[Classifier, str]] = ..., classifier_why: _Optional[str] = ..., cgroup_count: _Optional[int] = ..., address_count: _Optional[int] = ..., unclassified: _Optional[_Iterable[_Union[Unclassified, _Mapping]]] = ..., failed: _Optional[_Iterable[str]] = ...) -> None: ...

class Unclassified(_message.Message):
    __slots__ = ("pod_uid", "pod_name", "why")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    pod_name: str
    why: str
    def __init__(self, pod_uid: _Optional[str] = ..., pod_name: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Nic(_message.Message):
    __slots__ = ("name", "role", "scheduler", "why", "up", "link_bps", "egress", "ingress")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    LINK_BPS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: NicRole
    scheduler: NicScheduler
    why: str
    up: bool
    link_bps: float
    egress: NicTree
    ingress: NicTree
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[NicRole, str]] = ..., scheduler: _Optional[_Union[NicScheduler, str]] = ..., why: _Optional[str] = ..., up: _Optional[bool] = ..., link_bps: _Optional[float] = ..., egress: _Optional[_Union[NicTree, _Mapping]] = ..., ingress: _Optional[_Union[NicTree, _Mapping]] = ...) -> None: ...

class NicTree(_message.Message):
    __slots__ = ("top_bps", "classes")
    TOP_BPS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    top_bps: float
    classes: _containers.RepeatedCompositeFieldContainer[NicClass]
    def __init__(self, top_bps: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[NicClass, _Mapping]]] = ...) -> None: ...

class NicClass(_message.Message):
    __slots__ = ("qos", "guarantee_bps", "ceiling_bps", "unlimited", "rate_bps", "bytes", "packets", "drops", "overlimits", "backlog_bytes", "why")
    QOS_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_BPS_FIELD_NUMBER: _ClassVar[int]
    CEILING_BPS_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    RATE_BPS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    OVERLIMITS_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    qos: Qos
    guarantee_bps: float
    ceiling_bps: float
    unlimited: bool
    rate_bps: float
    bytes: int
    packets: int
    drops: int
    overlimits: int
    backlog_bytes: int
    why: str
    def __init__(self, qos: _Optional[_Union[Qos, str]] = ..., guarantee_bps: _Optional[float] = ..., ceiling_bps: _Optional[float] = ..., unlimited: _Optional[bool] = ..., rate_bps: _Optional[float] = ..., bytes: _Optional[int] = ..., packets: _Optional[int] = ..., drops: _Optional[int] = ..., overlimits: _Optional[int] = ..., backlog_bytes: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class PodTraffic(_message.Message):
    __slots__ = ("way", "why")
    WAY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    way: TrafficWay
    why: str
    def __init__(self, way: _Optional[_Union[TrafficWay, str]] = ..., why: _Optional[str] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("shared_cpus", "mid_cpus", "batch_cpus", "shared_mems", "batch_mems", "hands_off_cpus", "owned")
    SHARED_CPUS_FIELD_NUMBER: _ClassVar[int]
    MID_CPUS_FIELD_NUMBER: _ClassVar[int]
    BATCH_CPUS_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMS_FIELD_NUMBER: _ClassVar[int]
    BATCH_MEMS_FIELD_NUMBER: _ClassVar[int]
    HANDS_OFF_CPUS_FIELD_NUMBER: _ClassVar[int]
    OWNED_FIELD_NUMBER: _ClassVar[int]
    shared_cpus: str
    mid_cpus: str
    batch_cpus: str
    shared_mems: str
    batch_mems: str
    hands_off_cpus: str
    owned: _containers.RepeatedCompositeFieldContainer[OwnedCpus]
    def __init__(self, shared_cpus: _Optional[str] = ..., mid_cpus: _Optional[str] = ..., batch_cpus: _Optional[str] = ..., shared_mems: _Optional[str] = ..., batch_mems: _Optional[str] = ..., hands_off_cpus: _Optional[str] = ..., owned: _Optional[_Iterable[_Union[OwnedCpus, _Mapping]]] = ...) -> None: ...

class OwnedCpus(_message.Message):
    __slots__ = ("pod_uid", "cpus", "why")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    cpus: str
    why: str
    def __init__(self, pod_uid: _Optional[str] = ..., cpus: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class PodPlacement(_message.Message):
    __slots__ = ("pool", "cpus", "mems", "why")
    POOL_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    pool: Pool
    cpus: str
    mems: str
    why: str
    def __init__(self, pool: _Optional[_Union[Pool, str]] = ..., cpus: _Optional[str] = ..., mems: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("hostname", "boot_id", "agent_version", "topology", "cpu", "memory", "watermark_bytes", "cpu_stall", "memory_stall", "io_stall", "load")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_STALL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_STALL_FIELD_NUMBER: _ClassVar[int]
    IO_STALL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    boot_id: str
    agent_version: str
    topology: Topology
    cpu: CpuTimes
    memory: NodeMemory
    watermark_bytes: int
    cpu_stall: Stall
    memory_stall: Stall
    io_stall: Stall
    load: Load
    def __init__(self, hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., agent_version: _Optional[str] = ..., topology: _Optional[_Union[Topology, _Mapping]] = ..., cpu: _Optional[_Union[CpuTimes, _Mapping]] = ..., memory: _Optional[_Union[NodeMemory, _Mapping]] = ..., watermark_bytes: _Optional[int] = ..., cpu_stall: _Optional[_Union[Stall, _Mapping]] = ..., memory_stall: _Optional[_Union[Stall, _Mapping]] = ..., io_stall: _Optional[_Union[Stall, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("online_cpus", "offline_cpus", "online_cpu_count", "physical_core_count", "socket_count", "numa_nodes", "isolated_cpus", "devices")
    ONLINE_CPUS_FIELD_NUMBER: _ClassVar[int]
    OFFLINE_CPUS_FIELD_NUMBER: _ClassVar[int]
    ONLINE_CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_CORE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SOCKET_COUNT_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODES_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_CPUS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    online_cpus: str
    offline_cpus: str
    online_cpu_count: int
    physical_core_count: int
    socket_count: int
    numa_nodes: _containers.RepeatedCompositeFieldContainer[NumaNode]
    isolated_cpus: str
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, online_cpus: _Optional[str] = ..., offline_cpus: _Optional[str] = ..., online_cpu_count: _Optional[int] = ..., physical_core_count: _Optional[int] = ..., socket_count: _Optional[int] = ..., numa_nodes: _Optional[_Iterable[_Union[NumaNode, _Mapping]]] = ..., isolated_cpus: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("name", "kind", "numa_node")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: DeviceKind
    numa_node: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[DeviceKind, str]] = ..., numa_node: _Optional[int] = ...) -> None: ...

class NumaNode(_message.Message):
    __slots__ = ("id", "cpus", "memory_bytes", "memory", "distances")
    ID_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    id: int
    cpus: str
    memory_bytes: int
    memory: NodeMemory
    distances: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., cpus: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., memory: _Optional[_Union[NodeMemory, _Mapping]] = ..., distances: _Optional[_Iterable[int]] = ...) -> None: ...

class CpuTimes(_message.Message):
    __slots__ = ("user_us", "nice_us", "system_us", "idle_us", "iowait_us", "irq_us", "softirq_us", "steal_us")
    USER_US_FIELD_NUMBER: _ClassVar[int]
    NICE_US_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_US_FIELD_NUMBER: _ClassVar[int]
    IDLE_US_FIELD_NUMBER: _ClassVar[int]
    IOWAIT_US_FIELD_NUMBER: _ClassVar[int]
    IRQ_US_FIELD_NUMBER: _ClassVar[int]
    SOFTIRQ_US_FIELD_NUMBER: _ClassVar[int]
    STEAL_US_FIELD_NUMBER: _ClassVar[int]
    user_us: int
    nice_us: int
    system_us: int
    idle_us: int
    iowait_us: int
    irq_us: int
    softirq_us: int
    steal_us: int
    def __init__(self, user_us: _Optional[int] = ..., nice_us: _Optional[int] = ..., system_us: _Optional[int] = ..., idle_us: _Optional[int] = ..., iowait_us: _Optional[int] = ..., irq_us: _Optional[int] = ..., softirq_us: _Optional[int] = ..., steal_us: _Optional[int] = ...) -> None: ...

class NodeMemory(_message.Message):
    __slots__ = ("total_bytes", "free_bytes", "available_bytes", "inactive_file_bytes", "reclaimable_bytes")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    INACTIVE_FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECLAIMABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    free_bytes: int
    available_bytes: int
    inactive_file_bytes: int
    reclaimable_bytes: int
    def __init__(self, total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., inactive_file_bytes: _Optional[int] = ..., reclaimable_bytes: _Optional[int] = ...) -> None: ...

class Stall(_message.Message):
    __slots__ = ("some_us", "full_us")
    SOME_US_FIELD_NUMBER: _ClassVar[int]
    FULL_US_FIELD_NUMBER: _ClassVar[int]
    some_us: int
    full_us: int
    def __init__(self, some_us: _Optional[int] = ..., full_us: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("load1", "load5", "load15", "runnable", "tasks")
    LOAD1_FIELD_NUMBER: _ClassVar[int]
    LOAD5_FIELD_NUMBER: _ClassVar[int]
    LOAD15_FIELD_NUMBER: _ClassVar[int]
    RUNNABLE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    load1: float
    load5: float
    load15: float
    runnable: int
    tasks: int
    def __init__(self, load1: _Optional[float] = ..., load5: _Optional[float] = ..., load15: _Optional[float] = ..., runnable: _Optional[int] = ..., tasks: _Optional[int] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("uid", "name", "cgroup", "inode", "qos", "priority", "source", "tier", "cpu_request_cores", "memory_request_bytes", "reading", "containers", "unsupported", "numa_bind", "exclusive", "near", "hands_off", "placement", "traffic")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    CPU_REQUEST_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    NUMA_BIND_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    NEAR_FIELD_NUMBER: _ClassVar[int]
    HANDS_OFF_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    cgroup: str
    inode: int
    qos: Qos
    priority: Priority
    source: str
    tier: str
    cpu_request_cores: float
    memory_request_bytes: int
    reading: Reading
    containers: _containers.RepeatedCompositeFieldContainer[Container]
    unsupported: _containers.RepeatedScalarFieldContainer[str]
    numa_bind: bool
    exclusive: bool
    near: str
    hands_off: bool
    placement: PodPlacement
    traffic: PodTraffic
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., cgroup: _Optional[str] = ..., inode: _Optional[int] = ..., qos: _Optional[_Union[Qos, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., source: _Optional[str] = ..., tier: _Optional[str] = ..., cpu_request_cores: _Optional[float] = ..., memory_request_bytes: _Optional[int] = ..., reading: _Optional[_Union[Reading, _Mapping]] = ..., containers: _Optional[_Iterable[_Union[Container, _Mapping]]] = ..., unsupported: _Optional[_Iterable[str]] = ..., numa_bind: _Optional[bool] = ..., exclusive: _Optional[bool] = ..., near: _Optional[str] = ..., hands_off: _Optional[bool] = ..., placement: _Optional[_Union[PodPlacement, _Mapping]] = ..., traffic: _Optional[_Union[PodTraffic, _Mapping]] = ...) -> None: ...

class Container(_message.Message):
    __slots__ = ("name", "cgroup", "inode", "reading", "main_pid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    MAIN_PID_FIELD_NUMBER: _ClassVar[int]
    name: str
    cgroup: str
    inode: int
    reading: Reading
    main_pid: int
    def __init__(self, name: _Optional[str] = ..., cgroup: _Optional[str] = ..., inode: _Optional[int] = ..., reading: _Optional[_Union[Reading, _Mapping]] = ..., main_pid: _Optional[int] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("cpu_us", "periods", "throttled_periods", "throttled_us", "cpu_stall", "memory_bytes", "run_delay_us", "working_set_bytes", "inactive_file_bytes", "anon_bytes", "file_bytes", "memory_events", "memory_stall", "io_stall", "pids", "slow_age_s", "pages_by_node")
    CPU_US_FIELD_NUMBER: _ClassVar[int]
    PERIODS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_PERIODS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_US_FIELD_NUMBER: _ClassVar[int]
    CPU_STALL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    WORKING_SET_BYTES_FIELD_NUMBER: _ClassVar[int]
    INACTIVE_FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANON_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_STALL_FIELD_NUMBER: _ClassVar[int]
    IO_STALL_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    SLOW_AGE_S_FIELD_NUMBER: _ClassVar[int]
    PAGES_BY_NODE_FIELD_NUMBER: _ClassVar[int]
    cpu_us: int
    periods: int
    throttled_periods: int
    throttled_us: int
    cpu_stall: Stall
    memory_bytes: int
    run_delay_us: int
    working_set_bytes: int
    inactive_file_bytes: int
    anon_bytes: int
    file_bytes: int
    memory_events: MemoryEvents
    memory_stall: Stall
    io_stall: Stall
    pids: int
    slow_age_s: float
    pages_by_node: _containers.RepeatedCompositeFieldContainer[NodePages]
    def __init__(self, cpu_us: _Optional[int] = ..., periods: _Optional[int] = ..., throttled_periods: _Optional[int] = ..., throttled_us: _Optional[int] = ..., cpu_stall: _Optional[_Union[Stall, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., run_delay_us: _Optional[int] = ..., working_set_bytes: _Optional[int] = ..., inactive_file_bytes: _Optional[int] = ..., anon_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ..., memory_events: _Optional[_Union[MemoryEvents, _Mapping]] = ..., memory_stall: _Optional[_Union[Stall, _Mapping]] = ..., io_stall: _Optional[_Union[Stall, _Mapping]] = ..., pids: _Optional[int] = ..., slow_age_s: _Optional[float] = ..., pages_by_node: _Optional[_Iterable[_Union[NodePages, _Mapping]]] = ...) -> None: ...

class NodePages(_message.Message):
    __slots__ = ("numa_node", "bytes")
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    numa_node: int
    bytes: int
    def __init__(self, numa_node: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class MemoryEvents(_message.Message):
    __slots__ = ("low", "high", "max", "oom", "oom_kill")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    OOM_FIELD_NUMBER: _ClassVar[int]
    OOM_KILL_FIELD_NUMBER: _ClassVar[int]
    low: int
    high: int
    max: int
    oom: int
    oom_kill: int
    def __init__(self, low: _Optional[int] = ..., high: _Optional[int] = ..., max: _Optional[int] = ..., oom: _Optional[int] = ..., oom_kill: _Optional[int] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("name", "subject", "level", "duration_s", "evidence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    level: float
    duration_s: float
    evidence: str
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ..., level: _Optional[float] = ..., duration_s: _Optional[float] = ..., evidence: _Optional[str] = ...) -> None: ...

class Knob(_message.Message):
    __slots__ = ("kind", "target")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    kind: KnobKind
    target: str
    def __init__(self, kind: _Optional[_Union[KnobKind, str]] = ..., target: _Optional[str] = ...) -> None: ...

class KnobValue(_message.Message):
    __slots__ = ("cores", "weight_ratio", "unlimited", "cpus", "mems", "on", "bps", "classid", "bytes")
    CORES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_RATIO_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMS_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    BPS_FIELD_NUMBER: _ClassVar[int]
    CLASSID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    cores: float
    weight_ratio: float
    unlimited: bool
    cpus: str
    mems: str
    on: bool
    bps: float
    classid: int
    bytes: int
    def __init__(self, cores: _Optional[float] = ..., weight_ratio: _Optional[float] = ..., unlimited: _Optional[bool] = ..., cpus: _Optional[str] = ..., mems: _Optional[str] = ..., on: _Optional[bool] = ..., bps: _Optional[float] = ..., classid: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("knob", "value", "by", "why")
    KNOB_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    knob: Knob
    value: KnobValue
    by: str
    why: str
    def __init__(self, knob: _Optional[_Union[Knob, _Mapping]] = ..., value: _Optional[_Union[KnobValue, _Mapping]] = ..., by: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("knob", "old", "new", "by", "why", "gives_back")
    KNOB_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    GIVES_BACK_FIELD_NUMBER: _ClassVar[int]
    knob: Knob
    old: KnobValue
    new: KnobValue
    by: str
    why: str
    gives_back: bool
    def __init__(self, knob: _Optional[_Union[Knob, _Mapping]] = ..., old: _Optional[_Union[KnobValue, _Mapping]] = ..., new: _Optional[_Union[KnobValue, _Mapping]] = ..., by: _Optional[str] = ..., why: _Optional[str] = ..., gives_back: _Optional[bool] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("change", "found", "error")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    change: Change
    found: KnobValue
    error: str
    def __init__(self, change: _Optional[_Union[Change, _Mapping]] = ..., found: _Optional[_Union[KnobValue, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("knob", "count", "age_s", "quiet_s", "found")
    KNOB_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    QUIET_S_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    knob: Knob
    count: int
    age_s: float
    quiet_s: float
    found: KnobValue
    def __init__(self, knob: _Optional[_Union[Knob, _Mapping]] = ..., count: _Optional[int] = ..., age_s: _Optional[float] = ..., quiet_s: _Optional[float] = ..., found: _Optional[_Union[KnobValue, _Mapping]] = ...) -> None: ...
