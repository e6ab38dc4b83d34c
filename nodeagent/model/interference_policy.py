"""When an online pod counts as disturbed, how its neighbours are judged, and how far the agent may go."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from nodeagent.model.interference import Rung


class InterferencePolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """[interference]. Detection is on; what is done is bounded by `scope` and `agent.enforce`."""

    detect: Annotated[
        bool, Meta(description="look for online pods that are disturbed by their neighbours")
    ] = True
    act: Annotated[
        bool, Meta(description="hold the antagonist back, step by step; false: name it and do nothing")
    ] = True
    top_rung: Annotated[
        int,
        Meta(
            ge=0,
            le=6,
            description="harshest step: 1 idle, 2 quota, 3 CPUs away, 4 memory and cache, 5 freeze, 6 evict",
        ),
    ] = int(Rung.SHRINK)
    cusum_h: Annotated[
        float, Meta(ge=1.0, le=50.0, description="alarm at this cumulative sum of deviations; higher = rarer")
    ] = 7.0
    cusum_k: Annotated[
        float, Meta(ge=0.1, le=3.0, description="deviation (in spreads) that the cumulative sum lets pass")
    ] = 1.0
    half_life_s: Annotated[float, Meta(ge=60.0, description="half-life of the samples in the baselines")] = (
        43_200.0
    )
    warm_samples: Annotated[
        int,
        Meta(
            ge=10, le=100_000, description="samples before a baseline is trusted; before that, limits alone"
        ),
    ] = 100
    young_s: Annotated[
        float, Meta(ge=0.0, le=86_400.0, description="age at which a pod's own signals begin to count")
    ] = 60.0
    window_s: Annotated[
        float, Meta(ge=60.0, le=1800.0, description="history in which an antagonist is looked for")
    ] = 180.0
    chance: Annotated[
        float,
        Meta(gt=0.0, le=0.5, description="greatest probability that a suspect is named by chance alone"),
    ] = 0.05
    trial_s: Annotated[
        float, Meta(ge=2.0, le=60.0, description="time for which the top suspect is capped on trial")
    ] = 10.0
    better_ratio: Annotated[
        float,
        Meta(
            gt=0.0, lt=1.0, description="trial: the victim's signal must fall below this share of what it was"
        ),
    ] = 0.8
    healthy_slack: Annotated[
        float,
        Meta(
            ge=0.0,
            le=1.0,
            description="(SLO - latency) / SLO above which a victim is well, whatever it waits",
        ),
    ] = 0.2
    lease_s: Annotated[
        float, Meta(ge=5.0, le=600.0, description="a restraint that is not renewed ends after this")
    ] = 20.0
    relax_after_s: Annotated[
        float, Meta(ge=5.0, le=3600.0, description="calm before a step down; doubles with each relapse")
    ] = 60.0
    relax_max_s: Annotated[float, Meta(ge=5.0, le=86_400.0, description="longest such calm")] = 1800.0
    changes_per_pod: Annotated[
        int,
        Meta(ge=1, le=100, description="most steps for one pod in 10 minutes; then it is held and said so"),
    ] = 6
    offer_ratio: Annotated[
        float,
        Meta(
            ge=0.0, le=1.0, description="share of the CPU offer that is left while interference is confirmed"
        ),
    ] = 0.5
