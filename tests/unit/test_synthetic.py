"""The SYNTHETIC node keeps what it promises: nothing is made or lost, and labels say what was done to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.core import rates
from nodeagent.core.decide import decide
from nodeagent.model.decision import Memory
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from tests.synthetic import Actor, Cause, Synthetic, constant, duty, path, steps, turns

WEB = Actor("web", constant(0.8), qos=Qos.LS, requests_per_core=1000.0, request_cores=1.0)
HOG = Actor("hog", steps((5, 6.0)))


def _causes(node: Synthetic, actor: Actor, seconds: int) -> list[Cause]:
    node.run(seconds)
    return [told[path(actor)].cause for told in node.labels]


def test_a_pod_beside_a_hog_is_calm_before_and_in_contention_after() -> None:
    assert _causes(Synthetic([WEB, HOG], cores=1), WEB, 10) == [Cause.CALM] * 5 + [Cause.CONTENTION] * 5


def test_a_hog_on_other_cpus_disturbs_nobody() -> None:
    apart = Actor("hog", constant(6.0), cpus="2-3")
    web = Actor("web", constant(0.8), qos=Qos.LS, cpus="0-1")
    assert set(_causes(Synthetic([web, apart], cores=4), web, 8)) == {Cause.CALM}


@pytest.mark.parametrize(
    ("actor", "cause"),
    [
        (Actor("web", constant(0.8), qos=Qos.LS, quota=0.4), Cause.OWN_QUOTA),
        (Actor("web", constant(3.5), qos=Qos.LS), Cause.OWN_LOAD),
    ],
)
def test_what_a_pod_does_to_itself_is_labelled_so(actor: Actor, cause: Cause) -> None:
    assert set(_causes(Synthetic([actor], cores=2), actor, 5)) == {cause}


def test_stolen_time_is_no_neighbours_fault() -> None:
    node = Synthetic([Actor("web", constant(1.9), qos=Qos.LS)], cores=2, steal=constant(0.5))
    assert set(_causes(node, WEB, 5)) == {Cause.STEAL}


def test_memory_traffic_costs_the_victim_cpu_time_and_not_waiting() -> None:
    web = Actor("web", constant(0.8), qos=Qos.LS, requests_per_core=1000.0, sensitivity=1.0, noise=0.0)
    stream = Actor("stream", steps((5, 2.0)), traffic=2e9, noise=0.0)
    node = Synthetic([web, stream], cores=4, bandwidth=8e9)
    assert _causes(node, web, 10) == [Cause.CALM] * 5 + [Cause.BANDWIDTH] * 5
    calm, hurt = node.labels[0][path(web)], node.labels[-1][path(web)]
    assert (calm.inflation, hurt.inflation) == pytest.approx((1.0, 1.5))
    assert hurt.contention == pytest.approx(0.0)


def test_pods_that_take_turns_never_work_at_once() -> None:
    courses = [turns(n, 3, 2.0, each_s=4.0, since_s=10.0) for n in range(3)]
    assert [sum(course(t) for course in courses) for t in range(9, 34)] == [0.0] + [2.0] * 24


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 6.0), st.sampled_from(["", "0", "0-1", "2-3", "1,3"])),
        min_size=1,
        max_size=5,
    )
)
def test_nobody_gets_more_than_it_wants_and_all_no_more_than_there_is(pods: list[tuple[float, str]]) -> None:
    actors = [Actor(f"p{n}", constant(cores), cpus=cpus, noise=0.0) for n, (cores, cpus) in enumerate(pods)]
    node = Synthetic(actors, cores=4, tick_s=0.1)
    before, after = node.second(), node.second()
    view = rates.view(after, before)
    for rated, (cores, _) in zip(view.pods, pods, strict=True):
        assert rated.cores is not None
        assert rated.cores <= min(cores, 8.0) + 1e-4
    used = sum(rated.cores or 0.0 for rated in view.pods)
    assert used <= 4.0 + 1e-4
    assert view.busy_cores == pytest.approx(used, abs=1e-3)


def test_the_same_seed_gives_the_same_node_and_another_one_does_not() -> None:
    def told(seed: int) -> list[object]:
        return list(Synthetic([WEB, HOG, Actor("b", duty(1.0, on_s=2, period_s=5))], seed=seed).run(8))

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_a_plan_that_is_obeyed_ends_the_contention() -> None:
    node = Synthetic([WEB, HOG], cores=1)
    node.run(10)
    node.obey([Setting(Knob(Kind.CPU_QUOTA, path(HOG)), 0.05, "test", "")])
    node.run(20)  # what has piled up takes its time
    assert node.labels[-1][path(WEB)].cause is Cause.CALM
    node.obey([])
    node.run(3)
    assert node.labels[-1][path(WEB)].cause is Cause.CONTENTION, "what is not in the plan is given back"


def test_the_agent_that_decides_over_it_keeps_a_latency_sensitive_pod_well() -> None:
    node, memory, policy = Synthetic([WEB, HOG], cores=2), Memory(), Policy()
    for _ in range(30):
        decision, memory = decide(node.second(), policy, memory)
        node.obey(decision.plan, decision.yielded)
    assert {told[path(WEB)].cause for told in node.labels[-10:]} == {Cause.CALM}
