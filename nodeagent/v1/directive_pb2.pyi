import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_OBSERVE: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]

class DirectiveState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTIVE_STATE_UNSPECIFIED: _ClassVar[DirectiveState]
    DIRECTIVE_STATE_IN_FORCE: _ClassVar[DirectiveState]
    DIRECTIVE_STATE_EXPIRED: _ClassVar[DirectiveState]
    DIRECTIVE_STATE_REPLACED: _ClassVar[DirectiveState]
    DIRECTIVE_STATE_ENDED: _ClassVar[DirectiveState]
MODE_UNSPECIFIED: Mode
MODE_OBSERVE: Mode
MODE_ENFORCE: Mode
DIRECTIVE_STATE_UNSPECIFIED: DirectiveState
DIRECTIVE_STATE_IN_FORCE: DirectiveState
DIRECTIVE_STATE_EXPIRED: DirectiveState
DIRECTIVE_STATE_REPLACED: DirectiveState
DIRECTIVE_STATE_ENDED: DirectiveState

class Directive(_message.Message):
    __slots__ = ("id", "lease", "reason", "set_mode", "hold_capacity", "lend_node", "recall_node", "end_directive")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SET_MODE_FIELD_NUMBER: _ClassVar[int]
    HOLD_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LEND_NODE_FIELD_NUMBER: _ClassVar[int]
    RECALL_NODE_FIELD_NUMBER: _ClassVar[int]
    END_DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    id: str
    lease: _duration_pb2.Duration
    reason: str
    set_mode: SetMode
    hold_capacity: HoldCapacity
    lend_node: LendNode
    recall_node: RecallNode
    end_directive: EndDirective
    def __init__(self, id: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., set_mode: _Optional[_Union[SetMode, _Mapping]] = ..., hold_capacity: _Optional[_Union[HoldCapacity, _Mapping]] = ..., lend_node: _Optional[_Union[LendNode, _Mapping]] = ..., recall_node: _Optional[_Union[RecallNode, _Mapping]] = ..., end_directive: _Optional[_Union[EndDirective, _Mapping]] = ...) -> None: ...

class SetMode(_message.Message):
    __slots__ = ("mode",)
    MODE_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ...) -> None: ...

class HoldCapacity(_message.Message):
    __slots__ = ("cpu_cores", "memory_bytes")
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_cores: float
    memory_bytes: int
    def __init__(self, cpu_cores: _Optional[float] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class LendNode(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecallNode(_message.Message):
    __slots__ = ("deadline",)
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    deadline: _timestamp_pb2.Timestamp
    def __init__(self, deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EndDirective(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DirectiveStatus(_message.Message):
    __slots__ = ("directive", "issuer", "taken_at", "ends_at", "state")
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    TAKEN_AT_FIELD_NUMBER: _ClassVar[int]
    ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    directive: Directive
    issuer: str
    taken_at: _timestamp_pb2.Timestamp
    ends_at: _timestamp_pb2.Timestamp
    state: DirectiveState
    def __init__(self, directive: _Optional[_Union[Directive, _Mapping]] = ..., issuer: _Optional[str] = ..., taken_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ends_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[DirectiveState, str]] = ...) -> None: ...
