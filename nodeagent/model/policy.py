"""The operator's wishes, already checked. Each field carries its bounds and the words that `check` prints.

TOML sections have the names of the fields of `Policy`: [capacity], [cpu], [burst], [weight], [pressure],
[numa], [interference], [drift], [nic]; `nics` are the [[nics]] entries.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta, Struct

from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.nic_policy import NicPolicy, NicRule


class OnDrift(enum.StrEnum):
    REASSERT = "reassert"
    YIELD = "yield"


class CapacityPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """OfflineAvailable = max(0, total*ceiling - max(reserved, system) - online peak)."""

    cpu_ceiling_ratio: Annotated[
        float, Meta(ge=0.0, le=1.0, description="share of the node's cores that may be in use in all")
    ] = 0.95
    memory_ceiling_ratio: Annotated[
        float, Meta(ge=0.0, le=1.0, description="share of the node's memory that may be in use in all")
    ] = 0.90
    reserved_cpu_cores: Annotated[
        float, Meta(ge=0.0, description="cores kept for the system, even when it uses less")
    ] = 0.0
    reserved_memory_bytes: Annotated[
        int, Meta(ge=0, description="memory kept for the system, even when it uses less")
    ] = 0
    cpu_peak_percentile: Annotated[
        float, Meta(ge=0.5, le=1.0, description="percentile of online CPU use that counts as its peak")
    ] = 0.95
    memory_peak_percentile: Annotated[
        float, Meta(ge=0.5, le=1.0, description="percentile of online memory use that counts as its peak")
    ] = 0.98
    half_life_s: Annotated[
        float, Meta(ge=60.0, description="half-life of the samples in the usage histograms")
    ] = 43_200.0
    warm_after_s: Annotated[
        float, Meta(ge=0.0, description="observed time before the histogram's percentile is trusted")
    ] = 600.0
    window_s: Annotated[
        float,
        Meta(ge=1.0, le=3600.0, description="online use counts with at least its maximum over this window"),
    ] = 60.0
    raise_ratio_per_s: Annotated[
        float, Meta(gt=0.0, le=1.0, description="fastest growth of the reported value, share of the node")
    ] = 0.01
    stale_after_s: Annotated[
        float, Meta(ge=1.0, le=600.0, description="an input older than this withdraws the whole offer")
    ] = 10.0


class CpuPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """How the Batch tier is bounded."""

    floor_cores: Annotated[float, Meta(ge=0.01, description="Batch as a whole never gets less than this")] = (
        0.1
    )
    pod_floor_cores: Annotated[
        float, Meta(ge=0.01, description="one Batch pod never gets less than this")
    ] = 0.02
    recover_after_s: Annotated[
        float, Meta(ge=0.0, le=600.0, description="calm time before Batch grows again")
    ] = 2.0
    recover_jitter_s: Annotated[
        float, Meta(ge=0.0, le=60.0, description="spread of that time, so that nodes do not grow in step")
    ] = 2.0
    recover_ratio_per_s: Annotated[
        float,
        Meta(gt=0.0, le=1.0, description="growth of the Batch quota, share of the node's cores per second"),
    ] = 0.05
    window_s: Annotated[
        float, Meta(ge=0.0, le=600.0, description="online use counts with its maximum over this window")
    ] = 5.0
    dead_band_ratio: Annotated[
        float,
        Meta(ge=0.0, le=0.5, description="a quota that would grow by less than this share is left alone"),
    ] = 0.05
    yielding_ceiling_ratio: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="where SCHED_IDLE parts all Batch from all online pods: share of the node's cores "
            "less the system's that Batch may use, whatever online pods use; 0 = no more than elsewhere",
        ),
    ] = 1.0
    idle: Annotated[
        bool, Meta(description="run Batch under SCHED_IDLE (cpu.idle=1) where the kernel has it")
    ] = True


class BurstPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """How LS pods with a CPU quota get over short needs of more. Batch never does.

    On by default: over time no pod uses more than its quota allows.
    """

    kernel_ratio: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="CPU burst, share of the quota: what a period leaves unused, a later one may use; "
            "0 = none. The kernel then refuses a quota below it, whoever sets it",
        ),
    ] = 1.0
    max_ratio: Annotated[
        float,
        Meta(
            ge=1.0, le=10.0, description="a throttled pod's quota rises to so many times its own; 1 = never"
        ),
    ] = 2.0
    budget_s: Annotated[
        float,
        Meta(
            ge=0.0,
            le=86400.0,
            description="what a pod may use above its quota, in seconds of it; what it leaves is saved up",
        ),
    ] = 60.0
    hold_s: Annotated[
        float, Meta(ge=0.0, le=600.0, description="the quota stays up so long after it was last needed")
    ] = 5.0
    room_ratio: Annotated[
        float,
        Meta(
            ge=0.0, le=1.0, description="share of what online work leaves that bursts may have, all together"
        ),
    ] = 0.5


class WeightPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Who gets more CPU when online classes contend. Inside a class, pods weigh by their requests."""

    ls_over_mid: Annotated[
        float, Meta(ge=1.0, le=100.0, description="weight of nodeagent/ls, where nodeagent/mid has 1")
    ] = 4.0
    ls_factor: Annotated[
        float,
        Meta(
            ge=1.0,
            le=100.0,
            description="other LS pods in scope: their own weight times this; above 1 others may get less "
            "than they request",
        ),
    ] = 1.0


class PressurePolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """When an LS pod counts as hurt."""

    ls_cpu_stall_ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="share of wall time in which an LS pod may wait for CPU")
    ] = 0.20
    rise_s: Annotated[float, Meta(ge=0.0, le=600.0, description="how long it must last to count")] = 0.0
    fall_s: Annotated[
        float, Meta(ge=0.0, le=600.0, description="how long it counts after the last time seen")
    ] = 0.0


class NumaPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Where pods run, and when an online pod's memory counts as being in the wrong place."""

    placement: Annotated[
        bool,
        Meta(description="give LS pods that ask whole cores of their own, and Batch whole cores of the rest"),
    ] = False
    mid_cpus: Annotated[
        int, Meta(ge=0, le=65536, description="CPUs of a pool of MID's own; 0 = MID shares one with LS")
    ] = 0
    move_after_s: Annotated[
        float, Meta(ge=0.0, le=3600.0, description="shortest time between two changes of Batch's CPUs")
    ] = 10.0
    migrate_bytes_per_s: Annotated[
        int,
        Meta(ge=1 << 20, le=1 << 40, description="fastest that pages follow a pod to other NUMA nodes"),
    ] = 512 << 20

    remote_ratio: Annotated[
        float,
        Meta(ge=0.0, le=1.0, description="share of an online pod's pages that may be away from its CPUs"),
    ] = 0.20
    remote_min_bytes: Annotated[
        int, Meta(ge=0, description="less than this away from a pod's CPUs does not count")
    ] = 64 << 20


class DriftPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """What to do when somebody else writes to a knob that the agent holds."""

    on_drift: Annotated[
        OnDrift, Meta(description="reassert: write again, with back-off; yield: leave it to the other writer")
    ] = OnDrift.REASSERT
    backoff_s: Annotated[
        float,
        Meta(ge=0.0, le=3600.0, description="wait before writing again after the second drift; doubles"),
    ] = 2.0
    backoff_max_s: Annotated[float, Meta(ge=0.0, le=86400.0, description="longest such wait")] = 60.0


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that `decide` may know of the operator's wishes.

    Only cgroups whose whole path matches a glob of `scope` may be written ("**" crosses "/").
    """

    scope: Annotated[
        tuple[str, ...], Meta(description="globs; only cgroups whose whole path matches one may be written")
    ] = ("nodeagent/**",)
    capacity: CapacityPolicy = CapacityPolicy()
    cpu: CpuPolicy = CpuPolicy()
    burst: BurstPolicy = BurstPolicy()
    weight: WeightPolicy = WeightPolicy()
    pressure: PressurePolicy = PressurePolicy()
    numa: NumaPolicy = NumaPolicy()
    interference: InterferencePolicy = InterferencePolicy()
    drift: DriftPolicy = DriftPolicy()
    nic: NicPolicy = NicPolicy()
    nics: tuple[NicRule, ...] = ()
