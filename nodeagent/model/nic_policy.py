"""The operator's wishes about NICs: [nic] for all of them, one [[nics]] entry for each that is special."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct


class RoleBy(enum.StrEnum):
    """What a NIC is for: as told, or by its routes and the GPUs near it."""

    AUTO = "auto"
    SHARED = "shared"
    ONLINE = "online"
    BULK = "bulk"


class ScheduleBy(enum.StrEnum):
    """The best step that works, or one of them and no other."""

    AUTO = "auto"
    HTB = "htb"
    EDT = "edt"
    VETH = "veth"
    OBSERVE = "observe"


class ClassifyBy(enum.StrEnum):
    """The same for telling whose a packet is."""

    AUTO = "auto"
    NFT = "nft"
    BPF = "bpf"
    NET_CLS = "net_cls"
    U32 = "u32"
    NONE = "none"


class NicPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """How traffic is shaped on all NICs."""

    classify: Annotated[
        ClassifyBy, Meta(description="how the class of a packet is told; auto: the best that works here")
    ] = ClassifyBy.AUTO
    beat_s: Annotated[
        float, Meta(ge=0.1, le=0.5, description="time between two looks at what the classes send")
    ] = 0.1
    usable_ratio: Annotated[
        float,
        Meta(ge=0.1, le=1.0, description="share of the link that is given out: below the real bottleneck"),
    ] = 0.95
    calm_beats: Annotated[
        int,
        Meta(ge=1, le=100, description="beats without need before Batch's ceiling goes up, a step a beat"),
    ] = 3
    step_up: Annotated[float, Meta(gt=1.0, le=4.0, description="such a step: the ceiling times this")] = 1.25
    stale_s: Annotated[
        float,
        Meta(ge=0.5, le=60.0, description="without counters for so long the ceiling is the pressed one"),
    ] = 2.0


class NicRule(Struct, frozen=True, forbid_unknown_fields=True):
    """One [[nics]] entry: NICs whose name matches; the first match wins. Without any entry, NICs with a
    default route are shaped. Shares are of what is usable of the link."""

    match: Annotated[str, Meta(min_length=1, max_length=64, description='glob over the name ("eth*")')]
    role: Annotated[
        RoleBy,
        Meta(
            description="shared; online: latency-sensitive first; bulk: training and shuffle first; auto: of"
            " several NICs by default route, else bulk is near the GPUs"
        ),
    ] = RoleBy.AUTO
    schedule: Annotated[
        ScheduleBy, Meta(description="how it is shaped; auto: the best that works on this NIC")
    ] = ScheduleBy.AUTO
    link_bps: Annotated[
        int,
        Meta(
            ge=0, le=10**13, description="bits per second of the real bottleneck; 0 = what the driver tells"
        ),
    ] = 0
    ls_ratio: Annotated[float, Meta(ge=0.0, le=1.0, description="guaranteed to LS")] | None = None
    mid_ratio: Annotated[float, Meta(ge=0.0, le=1.0, description="guaranteed to MID")] | None = None
    batch_ratio: Annotated[float, Meta(gt=0.0, le=1.0, description="guaranteed to Batch")] | None = None
    batch_ceiling_ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="most that Batch ever gets, on an idle link")
    ] = 1.0
    batch_pressed_ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="Batch's ceiling when online traffic needs the link")
    ] = 0.10
    watermark_ratio: Annotated[
        float, Meta(ge=0.0, le=1.0, description="online traffic below this share leaves the link to Batch")
    ] = 0.05
    ingress_ratio: Annotated[
        float,
        Meta(ge=0.0, le=1.0, description="most that Batch may receive; 0 = incoming traffic is not shaped"),
    ] = 0.0
