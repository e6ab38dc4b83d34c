"""Weights by class: the agent's own directories and pods, and pods that kubelet has given a weight."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.kernel.targets import weight_knobs
from nodeagent.model.decision import Memory
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import OWN_LS, OWN_TIER, Member, Qos
from nodeagent.model.policy import Policy, WeightPolicy
from nodeagent.model.snapshot import Pod
from tests.unit import samples

KUBELET = ("kubepods/podA", "kubepods/podB", "kubepods/burstable/podC")
QOS_DIRECTORIES = ("kubepods", "kubepods/burstable", "kubepods/besteffort")
EVERYWHERE = ("nodeagent/**", "kubepods/**")


def _pod(number: int, qos: Qos, cgroup: str, request: float | None = None, tier: str | None = None) -> Pod:
    pod = samples.pod(number, 1000.0, qos=qos, containers=0, request_cores=request)
    return replace(pod, spec=replace(pod.spec, uid=cgroup, cgroup=cgroup, tier=tier))


def _weights(pods: tuple[Pod, ...], policy: Policy, *knobs: KnobReading) -> dict[str, float | str]:
    seen = replace(samples.snapshot(0, pods=pods, knobs=knobs), tiers=(OWN_TIER,))
    plan = decide(seen, policy, Memory())[0].plan
    return {s.knob.target: s.value for s in plan if s.knob.kind is Kind.CPU_WEIGHT}


def _knob(target: str, actual: float = 1.0) -> KnobReading:
    return replace(samples.weight_knob(target, actual), has_idle=True)


def test_in_the_agents_own_subtree_ls_outweighs_mid_and_batch_is_idle() -> None:
    pods = (_pod(1, Qos.LS, f"{OWN_LS}/a", 2.0), _pod(2, Qos.MID, "nodeagent/mid/b", 0.5))
    knobs = [_knob(path) for path in (OWN_LS, "nodeagent/mid", OWN_TIER, f"{OWN_LS}/a", "nodeagent/mid/b")]
    weights = _weights(pods, Policy(), *knobs)
    assert weights == {OWN_LS: 4.0, OWN_TIER: 0.0, f"{OWN_LS}/a": 2.0, "nodeagent/mid/b": 0.5}


def _kubelets(ls_factor: float) -> dict[str, float | str]:
    kinds = (Qos.LS, Qos.LS, Qos.MID)
    pods = tuple(_pod(n, qos, path) for n, (qos, path) in enumerate(zip(kinds, KUBELET, strict=True)))
    knobs = [_knob(path, weight) for path, weight in zip(KUBELET, (2.0, 0.5, 1.0), strict=True)]
    policy = Policy(scope=EVERYWHERE, weight=WeightPolicy(ls_factor=ls_factor))
    return _weights(pods, policy, *knobs, *map(_knob, QOS_DIRECTORIES))


def test_what_kubelet_set_by_request_is_left_alone_by_default() -> None:
    assert _kubelets(1.0) == {}


def test_a_factor_for_ls_keeps_the_proportions_inside_the_class() -> None:
    assert _kubelets(3.0) == {"kubepods/podA": 6.0, "kubepods/podB": 1.5}


def test_the_factor_is_not_taken_again_of_what_was_written() -> None:
    held = KnobReading(
        Knob(Kind.CPU_WEIGHT, KUBELET[0]), 6.0, 1024, 2 / 1024, 256.0, original=2.0, written=6.0
    )
    policy = Policy(scope=EVERYWHERE, weight=WeightPolicy(ls_factor=3.0))
    assert _weights((_pod(0, Qos.LS, KUBELET[0]),), policy, held) == {KUBELET[0]: 6.0}


@pytest.mark.parametrize("directory", QOS_DIRECTORIES)
def test_a_directory_of_kubelets_is_never_made_idle_nor_weighed(directory: str) -> None:
    batch = _pod(1, Qos.BATCH, "kubepods/besteffort/podX", tier="kubepods/besteffort")
    seen = samples.snapshot(0, pods=(batch,), knobs=(_knob(directory), _knob(batch.spec.cgroup)))
    seen = replace(seen, tiers=("kubepods/besteffort",))
    policy = Policy(scope=EVERYWHERE, weight=WeightPolicy(ls_factor=5.0))
    weights = {
        s.knob.target: s.value
        for s in decide(seen, policy, Memory())[0].plan
        if s.knob.kind is Kind.CPU_WEIGHT
    }
    assert weights == {batch.spec.cgroup: 0.0}


def test_only_weights_that_may_be_wanted_are_read() -> None:
    kinds = {OWN_LS + "/a": Qos.LS, "nodeagent/mid/b": Qos.MID, KUBELET[0]: Qos.LS, KUBELET[2]: Qos.MID}
    members = [Member(_pod(n, qos, path, 1.0).spec) for n, (path, qos) in enumerate(kinds.items())]
    own = {OWN_LS, f"{OWN_LS}/a", "nodeagent/mid/b"}
    pools = (OWN_LS, "nodeagent/mid")
    assert {k.target for k in weight_knobs(members, pools, WeightPolicy())} == own
    more = weight_knobs(members, pools, WeightPolicy(ls_factor=2.0))
    assert {k.target for k in more} == own | {KUBELET[0]}
    bare = [Member(_pod(9, Qos.LS, f"{OWN_LS}/z").spec)]
    assert weight_knobs(bare, (), WeightPolicy()) == set()
