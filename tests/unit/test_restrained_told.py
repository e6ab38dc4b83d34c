"""Explanations of restrained pods: what is shown can be evaluated, and gives the value that was decided."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.core import interference
from nodeagent.core.explain.law import figure
from nodeagent.model.interference import Interference
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.plan import Kind, Knob, numeric
from nodeagent.model.pod import Qos
from nodeagent.model.policy import CpuPolicy, Policy
from tests.unit import samples
from tests.unit.restrained_node import restraint
from tests.unit.test_explain import checked, loads, named, steps
from tests.unit.world import Load, World


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(loads, st.none() | st.floats(0.0, 4.0)), min_size=1, max_size=8))
def test_the_arithmetic_of_a_restrained_quota_gives_it(course: list[tuple[Load, float | None]]) -> None:
    world = World(policy=Policy(cpu=CpuPolicy(recover_jitter_s=0.0)))
    pod = samples.pod(1, 0.0, qos=Qos.BATCH).spec
    for load, cores in course:
        held = restraint(pod.cgroup, quota_cores=cores, idle=True) if cores is not None else None
        told = Interference(restraints=() if held is None else (held,))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(interference, "watch", lambda *_, told=told: (told, InterferenceMemory()))
            for tick, account in steps(world, load):
                found = account.pod(pod.uid)
                checked(found)
                quota = next(
                    (s for s in tick.decision.plan if s.knob == Knob(Kind.CPU_QUOTA, pod.cgroup)), None
                )
                if quota is not None:
                    assert named(found)[str(quota.knob)].result == f"{figure(numeric(quota.value))} cores"
                    assert (
                        held is None
                        or quota.why != held.why
                        or numeric(quota.value) <= max(0.02, cores or 0.0)
                    )
