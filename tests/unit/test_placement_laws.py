"""Laws of placement over real machines: nobody shares, nothing is empty, nothing moves without need."""

from __future__ import annotations

import random
from itertools import combinations, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.placement import BindRequest, Placement
from nodeagent.model.topology import Topology
from tests.unit.machines import GIB, MACHINES, MEMORY_LESS, SUB_NUMA, Layout, without
from tests.unit.node_life import Life, cpu_ids, random_request

LARGE = ["2 sockets in 4 sub-NUMA clusters", "8 sockets of 8 cores SMT"]
BY_NAME = pytest.mark.parametrize("name", MACHINES)
SMALL = {
    "2 sockets of 2 nodes of 3 cores SMT": Layout(sockets=2, nodes=2, cores=3, threads=2).topology(),
    "4 sockets of 4 CPUs": Layout(sockets=4, cores=4).topology(),
}


def _owners(placement: Placement) -> dict[str, tuple[str, str]]:
    return {placed.uid: (placed.cpus, placed.mems) for placed in placement.bound}


@BY_NAME
def test_pods_come_and_go_and_who_is_placed_never_moves(name: str) -> None:
    life, dice = Life(MACHINES[name]), random.Random(name)
    cpus = life.topology.cores
    for round_ in range(120):
        before = _owners(life.placement) if life.placement else {}
        life.batch_cores = dice.choice((life.batch_cores, dice.uniform(0, cpus)))
        life.mid_cpus = dice.choice((life.mid_cpus, life.mid_cpus, 0, cpus // 4))
        life.memory = {n.id: dice.choice((0, GIB, n.memory_bytes or 0)) for n in life.topology.nodes}
        if life.requests and dice.random() < len(before) / (len(before) + 8):
            now = life.leave(dice.choice(life.requests).uid)
        else:
            now = life.arrive(random_request(dice, life.topology, f"pod-{round_}"))
        after = _owners(now)
        staying = {request.uid for request in life.requests} & set(before)
        assert {uid: after.get(uid) for uid in staying} == {uid: before[uid] for uid in staying}


@BY_NAME
def test_cpus_go_and_come_back_and_only_those_who_lost_some_move(name: str) -> None:
    whole, dice = MACHINES[name], random.Random(name)
    life = Life(whole, batch_cores=whole.cores / 3)
    life.arrive(*(random_request(dice, whole, f"pod-{n}") for n in range(6)))
    for _ in range(25):
        before = _owners(life.placement or Placement())
        was = set(life.whole())
        ids = [cpu.id for cpu in whole.cpus]
        gone = dice.sample(ids, dice.randint(0, min(4, len(ids) - 1)))
        life.topology = without(whole, *gone)
        life.hands_off = CpuSet({*whole.isolated, *dice.sample(ids, dice.choice((0, 0, 1, 2)))})
        after = _owners(life.step())
        touched = {cpu for core in was ^ set(life.whole()) for cpu in core}
        exclusive = {request.uid for request in life.requests if request.exclusive}
        for uid, (cpus, _) in before.items():
            if uid not in exclusive and uid in after and not cpu_ids(cpus) & touched:
                assert after[uid][0] == cpus


@BY_NAME
def test_a_cpu_that_goes_and_comes_back_leaves_everybody_in_place(name: str) -> None:
    life = Life(MACHINES[name], batch_cores=2)
    life.arrive(*(BindRequest(f"pod-{n}", 1 + n) for n in range(3)))
    before = _owners(life.placement or Placement())
    pools = life.usable - {cpu for cpus, _ in before.values() for cpu in cpu_ids(cpus)}
    life.topology = without(MACHINES[name], max(pools))
    if len(pools) == 1:  # the last CPU of the pools: somebody has to make room
        assert _owners(life.step()) != before
        return
    assert _owners(life.step()) == before
    life.topology = MACHINES[name]
    assert _owners(life.step()) == before


@settings(max_examples=60)
@given(st.sampled_from(sorted(MACHINES)), st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(name: str, dice: random.Random) -> None:
    life = Life(MACHINES[name], batch_cores=3)
    requests = [random_request(dice, life.topology, f"pod-{n}") for n in range(dice.randint(1, 12))]
    one = Life(MACHINES[name], batch_cores=3).arrive(*requests)
    dice.shuffle(requests)
    assert life.arrive(*requests) == one


@pytest.mark.parametrize("topology", [SUB_NUMA, MEMORY_LESS, *SMALL.values()])
def test_pods_of_one_shape_reach_one_state_in_whatever_order_they_arrive(topology: Topology) -> None:
    """The documented tie: who of them sits where; what is taken, and all pools, are the same."""
    requests = [BindRequest(f"pod-{n}", 3, GIB) for n in range(4)]
    ends = set()
    for order in permutations(requests):
        life = Life(topology, batch_cores=3)
        for request in order:
            life.arrive(request)
        now = life.step()
        ends.add((frozenset(cpus for cpus, _ in _owners(now).values()), now.shared, now.batch))
    assert len(ends) == 1


@settings(max_examples=40)
@given(st.sampled_from(LARGE), st.randoms())
def test_defragmentation_places_no_pod_worse_than_arriving_together(name: str, dice: random.Random) -> None:
    """So after it the order of arrivals matters no more, but for who sits where."""
    life = Life(MACHINES[name])
    for n in range(20):
        life.arrive(replace(random_request(dice, life.topology, f"pod-{n}"), exclusive=False, memory_bytes=0))
        if dice.random() < 0.3:
            life.leave(dice.choice(life.requests).uid)
    together = Life(MACHINES[name]).arrive(*life.requests)
    scattered = life.next()
    tidy = life.step(defragment=True)

    def badness(placement: Placement) -> tuple[int, int]:
        return len(placement.unplaced), sum(len(life.node_of(placed.cpus)) for placed in placement.bound)

    assert badness(tidy) <= min(badness(together), badness(scattered))
    assert tidy == scattered or badness(tidy) < badness(scattered), "and nobody moves for nothing"


@settings(max_examples=80)
@given(st.sampled_from([*SMALL, *LARGE]), st.randoms(use_true_random=False))
def test_no_set_of_fewer_nodes_would_have_done(name: str, dice: random.Random) -> None:
    topology = {**SMALL, **MACHINES}[name]
    life = Life(topology)
    for n in range(dice.randint(0, 12)):
        life.arrive(BindRequest(f"old-{n}", random_request(dice, topology, "").cpus))
    life.memory = {node.id: dice.randint(0, 4) * GIB for node in topology.nodes}
    owned = {cpu for cpus, _ in _owners(life.next()).values() for cpu in cpu_ids(cpus)}
    new = BindRequest("new", dice.randint(1, topology.cores // 2), dice.randint(0, 6) * GIB)
    free = {
        n.id: sum(len(c) for c in life.whole() if c <= set(n.cpus) and not c & owned) for n in topology.nodes
    }
    used = [node for node, cpus in free.items() if cpus]

    def enough(nodes: tuple[int, ...]) -> bool:
        room, size = sum(free[n] for n in nodes), sum(life.memory[n] for n in nodes)
        return room >= new.cpus and size >= new.memory_bytes

    sizes = [n for n in range(1, len(used) + 1) if any(map(enough, combinations(used, n)))]
    now = life.arrive(new)
    placed = {p.uid: p for p in now.bound}.get("new")
    if placed is not None:
        assert sizes and len(cpu_ids(placed.mems) | life.node_of(placed.cpus)) == sizes[0]
    elif sizes:
        threads = max(len(core) for core in life.whole())
        assert sum(free.values()) - threads < new.cpus + threads, "only the core of the pools is refused"


@settings(max_examples=100)
@given(st.sampled_from(sorted(SMALL)), st.randoms(use_true_random=False))
def test_batch_moves_as_few_cores_as_its_shares_allow(name: str, dice: random.Random) -> None:
    topology = SMALL[name]
    life = Life(topology)
    threads = len(life.whole()[0])
    for n in range(6):
        before = cpu_ids(life.placement.batch) if life.placement else set()
        life.batch_cores = dice.randint(1, topology.cores)
        now = life.arrive(BindRequest(f"pod-{n}", dice.randint(1, 3)))
        if not before:
            continue
        owned = {cpu for placed in now.bound for cpu in cpu_ids(placed.cpus)}
        free = [len(set(node.cpus) - owned) // threads for node in topology.nodes]
        held = [len(set(node.cpus) & before - owned) // threads for node in topology.nodes]
        total = len(cpu_ids(now.batch)) // threads
        exact = [total * cores / sum(free) for cores in free]
        allowed = product(*(range(int(e), -int(-e // 1) + 1) for e in exact))
        least = min(
            sum(abs(a - b) for a, b in zip(held, counts, strict=True))
            for counts in allowed
            if sum(counts) == total
        )
        assert len(before - owned ^ cpu_ids(now.batch)) == least * threads
