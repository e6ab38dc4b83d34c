import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_UNSPECIFIED: _ClassVar[Channel]
    CHANNEL_CPU: _ClassVar[Channel]
    CHANNEL_LLC: _ClassVar[Channel]
    CHANNEL_MEMORY: _ClassVar[Channel]
    CHANNEL_IO: _ClassVar[Channel]
    CHANNEL_NET: _ClassVar[Channel]
    CHANNEL_APP: _ClassVar[Channel]

class InterferenceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERFERENCE_STATE_UNSPECIFIED: _ClassVar[InterferenceState]
    INTERFERENCE_STATE_UNKNOWN: _ClassVar[InterferenceState]
    INTERFERENCE_STATE_CALM: _ClassVar[InterferenceState]
    INTERFERENCE_STATE_SUSPECT: _ClassVar[InterferenceState]
    INTERFERENCE_STATE_CONFIRMED: _ClassVar[InterferenceState]

class Gate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GATE_UNSPECIFIED: _ClassVar[Gate]
    GATE_OWN_QUOTA: _ClassVar[Gate]
    GATE_STEAL: _ClassVar[Gate]
    GATE_OWN_LOAD: _ClassVar[Gate]
    GATE_YOUNG: _ClassVar[Gate]
    GATE_IDLE: _ClassVar[Gate]
    GATE_SMALL: _ClassVar[Gate]
    GATE_HEALTHY: _ClassVar[Gate]

class TrialResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRIAL_RESULT_UNSPECIFIED: _ClassVar[TrialResult]
    TRIAL_RESULT_RUNNING: _ClassVar[TrialResult]
    TRIAL_RESULT_KEPT: _ClassVar[TrialResult]
    TRIAL_RESULT_UNDONE: _ClassVar[TrialResult]
    TRIAL_RESULT_CUT_SHORT: _ClassVar[TrialResult]

class Rung(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUNG_UNSPECIFIED: _ClassVar[Rung]
    RUNG_FREE: _ClassVar[Rung]
    RUNG_IDLE: _ClassVar[Rung]
    RUNG_QUOTA: _ClassVar[Rung]
    RUNG_CPUSET: _ClassVar[Rung]
    RUNG_SHRINK: _ClassVar[Rung]
    RUNG_FREEZE: _ClassVar[Rung]
    RUNG_EVICT: _ClassVar[Rung]
CHANNEL_UNSPECIFIED: Channel
CHANNEL_CPU: Channel
CHANNEL_LLC: Channel
CHANNEL_MEMORY: Channel
CHANNEL_IO: Channel
CHANNEL_NET: Channel
CHANNEL_APP: Channel
INTERFERENCE_STATE_UNSPECIFIED: InterferenceState
INTERFERENCE_STATE_UNKNOWN: InterferenceState
INTERFERENCE_STATE_CALM: InterferenceState
INTERFERENCE_STATE_SUSPECT: InterferenceState
INTERFERENCE_STATE_CONFIRMED: InterferenceState
GATE_UNSPECIFIED: Gate
GATE_OWN_QUOTA: Gate
GATE_STEAL: Gate
GATE_OWN_LOAD: Gate
GATE_YOUNG: Gate
GATE_IDLE: Gate
GATE_SMALL: Gate
GATE_HEALTHY: Gate
TRIAL_RESULT_UNSPECIFIED: TrialResult
TRIAL_RESULT_RUNNING: TrialResult
TRIAL_RESULT_KEPT: TrialResult
TRIAL_RESULT_UNDONE: TrialResult
TRIAL_RESULT_CUT_SHORT: TrialResult
RUNG_UNSPECIFIED: Rung
RUNG_FREE: Rung
RUNG_IDLE: Rung
RUNG_QUOTA: Rung
RUNG_CPUSET: Rung
RUNG_SHRINK: Rung
RUNG_FREEZE: Rung
RUNG_EVICT: Rung

class Episode(_message.Message):
    __slots__ = ("id", "victim_uid", "victim_name", "victim_cgroup", "channel", "state", "opened_at", "cleared_at", "evidence", "suspects", "trials", "actions", "held", "antagonist_uids", "recovered_s", "story")
    ID_FIELD_NUMBER: _ClassVar[int]
    VICTIM_UID_FIELD_NUMBER: _ClassVar[int]
    VICTIM_NAME_FIELD_NUMBER: _ClassVar[int]
    VICTIM_CGROUP_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    CLEARED_AT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ANTAGONIST_UIDS_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_S_FIELD_NUMBER: _ClassVar[int]
    STORY_FIELD_NUMBER: _ClassVar[int]
    id: str
    victim_uid: str
    victim_name: str
    victim_cgroup: str
    channel: Channel
    state: InterferenceState
    opened_at: _timestamp_pb2.Timestamp
    cleared_at: _timestamp_pb2.Timestamp
    evidence: _containers.RepeatedCompositeFieldContainer[Alarm]
    suspects: _containers.RepeatedCompositeFieldContainer[Suspect]
    trials: _containers.RepeatedCompositeFieldContainer[Trial]
    actions: _containers.RepeatedCompositeFieldContainer[Action]
    held: str
    antagonist_uids: _containers.RepeatedScalarFieldContainer[str]
    recovered_s: float
    story: str
    def __init__(self, id: _Optional[str] = ..., victim_uid: _Optional[str] = ..., victim_name: _Optional[str] = ..., victim_cgroup: _Optional[str] = ..., channel: _Optional[_Union[Channel, str]] = ..., state: _Optional[_Union[InterferenceState, str]] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cleared_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ..., suspects: _Optional[_Iterable[_Union[Suspect, _Mapping]]] = ..., trials: _Optional[_Iterable[_Union[Trial, _Mapping]]] = ..., actions: _Optional[_Iterable[_Union[Action, _Mapping]]] = ..., held: _Optional[str] = ..., antagonist_uids: _Optional[_Iterable[str]] = ..., recovered_s: _Optional[float] = ..., story: _Optional[str] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("sign", "channel", "value", "baseline", "z", "cusum")
    SIGN_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    CUSUM_FIELD_NUMBER: _ClassVar[int]
    sign: str
    channel: Channel
    value: float
    baseline: float
    z: float
    cusum: float
    def __init__(self, sign: _Optional[str] = ..., channel: _Optional[_Union[Channel, str]] = ..., value: _Optional[float] = ..., baseline: _Optional[float] = ..., z: _Optional[float] = ..., cusum: _Optional[float] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("pod_uid", "pod_name", "alarm", "gate", "why")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    pod_name: str
    alarm: Alarm
    gate: Gate
    why: str
    def __init__(self, pod_uid: _Optional[str] = ..., pod_name: _Optional[str] = ..., alarm: _Optional[_Union[Alarm, _Mapping]] = ..., gate: _Optional[_Union[Gate, str]] = ..., why: _Optional[str] = ...) -> None: ...

class Suspect(_message.Message):
    __slots__ = ("uid", "name", "cgroup", "scores", "p_value", "share_ratio", "contribution_ratio", "named")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    SHARE_RATIO_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_RATIO_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    cgroup: str
    scores: _containers.ScalarMap[str, float]
    p_value: float
    share_ratio: float
    contribution_ratio: float
    named: bool
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., cgroup: _Optional[str] = ..., scores: _Optional[_Mapping[str, float]] = ..., p_value: _Optional[float] = ..., share_ratio: _Optional[float] = ..., contribution_ratio: _Optional[float] = ..., named: _Optional[bool] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("suspect_uid", "began_s", "until_s", "before", "during", "result", "sign")
    SUSPECT_UID_FIELD_NUMBER: _ClassVar[int]
    BEGAN_S_FIELD_NUMBER: _ClassVar[int]
    UNTIL_S_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    DURING_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    suspect_uid: str
    began_s: float
    until_s: float
    before: float
    during: float
    result: TrialResult
    sign: str
    def __init__(self, suspect_uid: _Optional[str] = ..., began_s: _Optional[float] = ..., until_s: _Optional[float] = ..., before: _Optional[float] = ..., during: _Optional[float] = ..., result: _Optional[_Union[TrialResult, str]] = ..., sign: _Optional[str] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("at", "pod_uid", "rung", "why")
    AT_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    pod_uid: str
    rung: Rung
    why: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pod_uid: _Optional[str] = ..., rung: _Optional[_Union[Rung, str]] = ..., why: _Optional[str] = ...) -> None: ...

class Restraint(_message.Message):
    __slots__ = ("pod_uid", "cgroup", "rung", "episode_id", "lease_left_s", "why", "idle", "quota_cores", "away_from_cpus", "memory_high_bytes", "io_weight_ratio", "llc_floor", "frozen")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_CORES_FIELD_NUMBER: _ClassVar[int]
    AWAY_FROM_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HIGH_BYTES_FIELD_NUMBER: _ClassVar[int]
    IO_WEIGHT_RATIO_FIELD_NUMBER: _ClassVar[int]
    LLC_FLOOR_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    cgroup: str
    rung: Rung
    episode_id: str
    lease_left_s: float
    why: str
    idle: bool
    quota_cores: float
    away_from_cpus: str
    memory_high_bytes: int
    io_weight_ratio: float
    llc_floor: bool
    frozen: bool
    def __init__(self, pod_uid: _Optional[str] = ..., cgroup: _Optional[str] = ..., rung: _Optional[_Union[Rung, str]] = ..., episode_id: _Optional[str] = ..., lease_left_s: _Optional[float] = ..., why: _Optional[str] = ..., idle: _Optional[bool] = ..., quota_cores: _Optional[float] = ..., away_from_cpus: _Optional[str] = ..., memory_high_bytes: _Optional[int] = ..., io_weight_ratio: _Optional[float] = ..., llc_floor: _Optional[bool] = ..., frozen: _Optional[bool] = ...) -> None: ...

class Interference(_message.Message):
    __slots__ = ("episodes", "restraints", "rejections")
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    RESTRAINTS_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    episodes: _containers.RepeatedCompositeFieldContainer[Episode]
    restraints: _containers.RepeatedCompositeFieldContainer[Restraint]
    rejections: _containers.RepeatedCompositeFieldContainer[Rejection]
    def __init__(self, episodes: _Optional[_Iterable[_Union[Episode, _Mapping]]] = ..., restraints: _Optional[_Iterable[_Union[Restraint, _Mapping]]] = ..., rejections: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ...) -> None: ...
