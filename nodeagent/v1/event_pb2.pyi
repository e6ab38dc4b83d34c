import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_LEVEL_UNSPECIFIED: _ClassVar[EventLevel]
    EVENT_LEVEL_INFO: _ClassVar[EventLevel]
    EVENT_LEVEL_WARNING: _ClassVar[EventLevel]
    EVENT_LEVEL_ERROR: _ClassVar[EventLevel]
    EVENT_LEVEL_DEBUG: _ClassVar[EventLevel]

class EventTopic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TOPIC_UNSPECIFIED: _ClassVar[EventTopic]
    EVENT_TOPIC_SIGNAL: _ClassVar[EventTopic]
    EVENT_TOPIC_ACTION: _ClassVar[EventTopic]
    EVENT_TOPIC_DRIFT: _ClassVar[EventTopic]
    EVENT_TOPIC_POD: _ClassVar[EventTopic]
    EVENT_TOPIC_CAPACITY: _ClassVar[EventTopic]
    EVENT_TOPIC_INTERFERENCE: _ClassVar[EventTopic]
EVENT_LEVEL_UNSPECIFIED: EventLevel
EVENT_LEVEL_INFO: EventLevel
EVENT_LEVEL_WARNING: EventLevel
EVENT_LEVEL_ERROR: EventLevel
EVENT_LEVEL_DEBUG: EventLevel
EVENT_TOPIC_UNSPECIFIED: EventTopic
EVENT_TOPIC_SIGNAL: EventTopic
EVENT_TOPIC_ACTION: EventTopic
EVENT_TOPIC_DRIFT: EventTopic
EVENT_TOPIC_POD: EventTopic
EVENT_TOPIC_CAPACITY: EventTopic
EVENT_TOPIC_INTERFERENCE: EventTopic

class Event(_message.Message):
    __slots__ = ("number", "seq", "observed_at", "level", "topic", "name", "keys")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    number: int
    seq: int
    observed_at: _timestamp_pb2.Timestamp
    level: EventLevel
    topic: EventTopic
    name: str
    keys: _containers.ScalarMap[str, str]
    def __init__(self, number: _Optional[int] = ..., seq: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., level: _Optional[_Union[EventLevel, str]] = ..., topic: _Optional[_Union[EventTopic, str]] = ..., name: _Optional[str] = ..., keys: _Optional[_Mapping[str, str]] = ...) -> None: ...
