import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushAppSignalsRequest(_message.Message):
    __slots__ = ("pod", "window", "requests", "quantiles", "histogram", "slo")
    POD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    SLO_FIELD_NUMBER: _ClassVar[int]
    pod: str
    window: _duration_pb2.Duration
    requests: int
    quantiles: _containers.RepeatedCompositeFieldContainer[LatencyQuantile]
    histogram: LatencyHistogram
    slo: str
    def __init__(self, pod: _Optional[str] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., requests: _Optional[int] = ..., quantiles: _Optional[_Iterable[_Union[LatencyQuantile, _Mapping]]] = ..., histogram: _Optional[_Union[LatencyHistogram, _Mapping]] = ..., slo: _Optional[str] = ...) -> None: ...

class LatencyQuantile(_message.Message):
    __slots__ = ("quantile", "latency_s")
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    quantile: float
    latency_s: float
    def __init__(self, quantile: _Optional[float] = ..., latency_s: _Optional[float] = ...) -> None: ...

class LatencyHistogram(_message.Message):
    __slots__ = ("bounds_s", "counts")
    BOUNDS_S_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    bounds_s: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, bounds_s: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class PushAppSignalsResponse(_message.Message):
    __slots__ = ("pod_uid", "pod_name")
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    POD_NAME_FIELD_NUMBER: _ClassVar[int]
    pod_uid: str
    pod_name: str
    def __init__(self, pod_uid: _Optional[str] = ..., pod_name: _Optional[str] = ...) -> None: ...
