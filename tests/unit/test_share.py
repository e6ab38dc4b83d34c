"""How the Batch limit is split: a scope that holds only a part of what runs, readings that are missing."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from nodeagent.core.rates import view
from nodeagent.core.share import Shares, split
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Pod
from tests.unit import samples

YARN = "hadoop-yarn"
OWN = samples.TIER


def _batch(number: int, at: float, tier: str, cores: float) -> Pod:
    pod = samples.pod(number, at, qos=Qos.BATCH, cores=cores, containers=0)
    return replace(pod, spec=replace(pod.spec, cgroup=f"{tier}/pod{number}", uid=f"{number}", tier=tier))


def _shares(scope: frozenset[str], used_cores: float, limit_cores: float = 6.0) -> Shares:
    """Two pods in YARN's tier that use `used_cores` each, one pod in the agent's own that uses 1 core."""
    seen = []
    for seq in (0, 1):
        at = 1000.0 + seq
        pods = (*(_batch(n, at, YARN, used_cores) for n in (1, 2)), _batch(3, at, OWN, 1.0))
        knobs = tuple(samples.quota_knob(path) for path in (YARN, OWN, *(p.spec.cgroup for p in pods)))
        seen.append(replace(samples.snapshot(seq, pods=pods, knobs=knobs), tiers=(YARN, OWN)))
    found = {r.knob: r for r in seen[1].knobs}
    return split(view(seen[1], seen[0]), limit_cores, 0.1, scope, found)


def test_a_tier_in_scope_gets_the_same_whatever_its_unwritten_pods_use() -> None:
    scope = frozenset({YARN, OWN, f"{OWN}/pod3"})
    busy, starved = _shares(scope, 2.5), _shares(scope, 0.05)
    assert math.isclose(busy.tiers[YARN], starved.tiers[YARN], rel_tol=1e-6)
    assert math.isclose(busy.tiers[YARN] + busy.tiers[OWN], 6.0, rel_tol=1e-6)
    assert busy.tiers[YARN] > busy.tiers[OWN], "two pods against one"


def test_pods_that_only_their_tier_bounds_get_no_quota_of_their_own() -> None:
    assert _shares(frozenset({YARN, OWN, f"{OWN}/pod3"}), 1.0).pods.keys() == {f"{OWN}/pod3"}


def test_what_nothing_bounds_is_taken_off_first() -> None:
    shares = _shares(frozenset({OWN, f"{OWN}/pod3"}), 2.0)
    assert shares.tiers.keys() == {OWN}
    assert shares.tiers[OWN] < 2.5, "of 6 cores, about 4 are used by pods that cannot be bounded"


def _unequal(limit_cores: float) -> Shares:
    """A hungry pod that holds 3.8 cores and one that holds 0.2 and is not read in this tick."""
    seen = []
    for seq in (0, 1):
        at = 1000.0 + seq
        pods = (_batch(1, at, OWN, 3.8), _batch(2, at, OWN, 0.1))
        if seq:
            pods = (pods[0], replace(pods[1], reading=replace(pods[1].reading, cpu_us=None)))
        held = (3.8, 0.2)
        knobs = tuple(samples.quota_knob(p.spec.cgroup, h, h) for p, h in zip(pods, held, strict=True))
        seen.append(replace(samples.snapshot(seq, pods=pods, knobs=knobs), tiers=(OWN,)))
    found = {r.knob: r for r in seen[1].knobs}
    scope = frozenset({OWN, *(p.spec.cgroup for p in seen[1].pods)})
    return split(view(seen[1], seen[0]), limit_cores, 0.1, scope, found)


@pytest.mark.parametrize("limit_cores", [1.0, 4.0, 7.0])
def test_a_pod_whose_reading_is_missing_gets_no_more_than_it_holds(limit_cores: float) -> None:
    shares = _unequal(limit_cores).pods
    assert shares[f"{OWN}/pod2"] <= 0.2
    assert shares[f"{OWN}/pod1"] >= min(limit_cores, 4.0) - 0.2


def test_without_any_rates_as_after_a_restart_every_pod_keeps_what_it_holds() -> None:
    seen = samples.snapshot(0, pods=(_batch(1, 1000.0, OWN, 3.8), _batch(2, 1000.0, OWN, 0.1)))
    held = {p.spec.cgroup: h for p, h in zip(seen.pods, (3.8, 0.2), strict=True)}
    knobs = {Knob(Kind.CPU_QUOTA, path): samples.quota_knob(path, h, h) for path, h in held.items()}
    seen = replace(seen, tiers=(OWN,), knobs=tuple(knobs.values()))
    assert split(view(seen, None), 4.0, 0.1, frozenset({OWN, *held}), knobs).pods == held
