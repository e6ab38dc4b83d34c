"""Placement by example: who gets which cores on which machine, and who is told why not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.core.placement import place
from nodeagent.core.placement.bits import bits, cores, cores_down, members, parse, text
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.placement import BindRequest, Placed, Placement
from nodeagent.model.topology import Topology
from tests.unit.machines import (
    CPU_LESS,
    EIGHT_NODES,
    EPYC,
    FOUR_NODES,
    GIB,
    ISOLATED,
    MEMORY_LESS,
    SUB_NUMA,
    TWO_BY_TWO,
    TWO_BY_TWO_SMT,
    TWO_CPUS,
    TWO_SOCKETS,
    UNKNOWN,
    without,
)
from tests.unit.node_life import Life, cpu_ids


def cpus_of(placement: Placement) -> dict[str, str]:
    return {placed.uid: placed.cpus for placed in placement.bound}


def mems_of(placement: Placement) -> dict[str, str]:
    return {placed.uid: placed.mems for placed in placement.bound}


def why_not(placement: Placement, uid: str) -> str:
    return dict(placement.unplaced)[uid]


@pytest.mark.parametrize("ids", [(), (0,), (0, 1, 2), (1, 3, 5), (0, 1, 63, 64, 65, 200, 255)])
def test_a_set_as_bits_prints_and_parses_as_a_cpu_set(ids: tuple[int, ...]) -> None:
    assert text(bits(ids)) == str(CpuSet(ids))
    assert parse(str(CpuSet(ids))) == bits(ids)
    assert tuple(members(bits(ids))) == ids


def test_cores_are_walked_from_either_end() -> None:
    core_of = {0: 0b0101, 2: 0b0101, 1: 0b1010, 3: 0b1010}
    assert list(cores(0b1111, core_of)) == [0b0101, 0b1010]
    assert list(cores_down(0b1111, core_of)) == [0b1010, 0b0101]


def test_without_bound_pods_all_is_shared_and_batch_is_spread_over_the_nodes() -> None:
    now = Life(TWO_BY_TWO, batch_cores=1.2).step()
    assert now == Placement(shared="0-3", mid="0-3", batch="0,2", batch_mems="0-1", shared_mems="0-1")


def test_a_bound_pod_owns_whole_cores_of_one_node_and_its_memory() -> None:
    now = Life(TWO_BY_TWO_SMT, batch_cores=2).arrive(BindRequest("db", 3, GIB))
    assert now.bound == (Placed("db", "4-7", "1"),)
    assert (now.shared, now.batch) == ("0-3", "0-1")
    assert now.batch_mems == now.shared_mems == "0-1"


def test_siblings_are_those_that_the_kernel_names_however_it_counts_them() -> None:
    assert cpus_of(Life(TWO_SOCKETS).arrive(BindRequest("db", 1))) == {"db": "127,255"}
    assert cpus_of(Life(SUB_NUMA).arrive(BindRequest("db", 1))) == {"db": "126-127"}
    assert cpus_of(Life(UNKNOWN).arrive(BindRequest("db", 1))) == {"db": "7"}


def test_the_last_core_stays_with_the_pools() -> None:
    life = Life(TWO_CPUS, batch_cores=2)
    assert cpus_of(life.arrive(BindRequest("a", 1))) == {"a": "1"}
    now = life.arrive(BindRequest("b", 1))
    assert (now.shared, now.mid, now.batch) == ("0", "0", "0")
    assert why_not(now, "b") == "needs 1 CPU in whole cores; 0 are left to bound pods"


def test_batch_keeps_its_floor_against_new_bound_pods() -> None:
    life = Life(FOUR_NODES, batch_cores=0, floor=40)
    now = life.arrive(BindRequest("fits", 88), BindRequest("not", 1))
    assert cpus_of(now) != {} and "0 are left" in why_not(now, "not")
    assert len(cpu_ids(now.batch)) == 40


def test_best_fit_leaves_room_for_the_large() -> None:
    life = Life(FOUR_NODES)
    first = life.arrive(BindRequest("small", 20))
    now = life.arrive(BindRequest("small too", 4))
    assert set(mems_of(now).values()) == {"3"}
    life.arrive(BindRequest("large", 32))
    now = life.arrive(BindRequest("large too", 32))
    assert mems_of(now) == {"small": "3", "small too": "3", "large": "2", "large too": "1"}
    assert set(first.bound) <= set(now.bound)


def test_what_is_too_large_for_a_node_stays_on_one_socket() -> None:
    now = Life(SUB_NUMA).arrive(BindRequest("wide", 40))
    assert mems_of(now) == {"wide": "5-7"}
    life = Life(SUB_NUMA)
    life.arrive(BindRequest("a", 16), BindRequest("b", 16), BindRequest("c", 16))
    assert mems_of(life.arrive(BindRequest("wide", 32)))["wide"] == "2-3"


def test_a_named_device_draws_its_pod_near() -> None:
    assert mems_of(Life(EIGHT_NODES).arrive(BindRequest("net", 4, near="mlx2"))) == {"net": "2"}
    assert mems_of(Life(TWO_SOCKETS).arrive(BindRequest("net", 4, near="eth0"))) == {"net": "0"}


def test_a_device_without_a_node_and_one_that_is_not_there_draw_nobody() -> None:
    plain = Life(TWO_SOCKETS).arrive(BindRequest("net", 4))
    assert Life(TWO_SOCKETS).arrive(BindRequest("net", 4, near="0000:03:00.0")) == plain
    assert Life(TWO_SOCKETS).arrive(BindRequest("net", 4, near="eth7")) == plain


def test_a_pod_is_behind_one_l3_where_it_can_be_and_the_tightest_one() -> None:
    life = Life(EPYC)
    first = life.arrive(BindRequest("a", 12))
    now = life.arrive(BindRequest("b", 4))
    assert cpus_of(now) == {**cpus_of(first), "b": "120-121,248-249"}, "beside a, in what a left of its L3"
    assert cpus_of(life.arrive(BindRequest("c", 10)))["c"] == "115-119,243-247"


def test_memory_decides_like_cpus() -> None:
    life = Life(FOUR_NODES, memory={0: 10 * GIB, 1: 10 * GIB, 2: GIB, 3: GIB})
    assert mems_of(life.arrive(BindRequest("one", 4, 8 * GIB))) == {"one": "1"}
    assert mems_of(life.arrive(BindRequest("two", 4, 11 * GIB)))["two"] == "0-1"
    now = life.arrive(BindRequest("three", 4, 5 * GIB))
    assert why_not(now, "three") == "needs 5 GiB; there are 3 GiB free on 4 NUMA nodes with free cores"


def test_memory_that_is_not_known_is_not_free() -> None:
    now = Life(FOUR_NODES, memory={0: 8 * GIB}).arrive(BindRequest("a", 4, GIB), BindRequest("b", 4))
    assert mems_of(now) == {"a": "0", "b": "0"}


def test_a_node_without_memory_is_the_last_choice_and_borrows_from_its_neighbour() -> None:
    life = Life(MEMORY_LESS)
    now = life.arrive(BindRequest("a", 8), BindRequest("b", 8), BindRequest("c", 4), BindRequest("d", 8))
    assert mems_of(now) == {"a": "3", "b": "2", "c": "0", "d": "0"}
    assert cpus_of(now)["c"] == "6-7,22-23", "node 1"


def test_memory_of_a_node_without_cpus_is_for_the_pools() -> None:
    now = Life(CPU_LESS).arrive(BindRequest("all", 14, 65 * GIB), BindRequest("db", 2, exclusive=True))
    assert "2" not in str(mems_of(now)) and now.shared_mems == "0,2"
    assert why_not(now, "all") == "needs 65 GiB; there are 64 GiB free on 1 NUMA node with free cores"


def test_an_exclusive_pod_takes_the_whole_node_and_its_memory() -> None:
    life = Life(FOUR_NODES, batch_cores=30)
    life.arrive(BindRequest("db", 2))
    now = life.arrive(BindRequest("alone", 3, exclusive=True))
    assert mems_of(now) == {"db": "3", "alone": "2"}
    assert cpus_of(now)["alone"] == "32-47,96-111"
    assert now.shared_mems == now.batch_mems == "0-1,3"


def test_an_exclusive_pod_needs_nodes_that_nobody_uses() -> None:
    life = Life(TWO_SOCKETS)
    life.arrive(BindRequest("db", 2))
    now = life.arrive(BindRequest("wide", 130, exclusive=True))
    assert why_not(now, "wide") == "needs 130 CPUs in whole cores; there are 128 on 1 unused NUMA node"


def test_no_exclusive_pod_takes_the_last_memory() -> None:
    topology = replace(TWO_BY_TWO, nodes=tuple(replace(n, memory_bytes=n.id * GIB) for n in TWO_BY_TWO.nodes))
    now = Life(topology).arrive(BindRequest("alone", 1, exclusive=True))
    assert why_not(now, "alone").endswith("none with memory would be left for the pools")


def test_cpus_of_others_are_in_no_set_and_their_siblings_are_for_ls_only() -> None:
    life = Life(TWO_BY_TWO_SMT, hands_off=CpuSet({7}), batch_cores=8)
    now = life.arrive(BindRequest("db", 4))
    assert cpus_of(now) == {"db": "0-3"}
    assert (now.shared, now.batch) == ("4-6", "4-5")
    now = Life(TWO_BY_TWO_SMT, hands_off=CpuSet({7})).arrive(BindRequest("alone", 1, exclusive=True))
    assert mems_of(now) == {"alone": "0"}, "somebody else is on node 1"


def test_an_exclusive_pod_stays_when_somebody_takes_a_cpu_of_its_node() -> None:
    life = Life(TWO_BY_TWO_SMT, batch_cores=2)
    now = life.arrive(BindRequest("alone", 2, exclusive=True))
    (mine,) = cpus_of(now).values()
    life.hands_off = CpuSet({max(CpuSet.parse(mine))})
    assert mems_of(life.step()) == mems_of(now)
    life.hands_off = CpuSet()
    assert cpus_of(life.step()) == cpus_of(now)


def test_isolated_cpus_do_not_keep_an_exclusive_pod_off_a_node() -> None:
    now = Life(ISOLATED).arrive(BindRequest("alone", 12, exclusive=True, near="eth0"))
    assert cpus_of(now) == {"alone": "0-5,16-21"}


def test_with_no_whole_core_batch_shares_what_there_is() -> None:
    now = Life(TWO_BY_TWO_SMT, hands_off=CpuSet({1, 3, 5, 7})).arrive(BindRequest("db", 1))
    assert (now.shared, now.batch) == ("0,2,4,6", "0,2,4,6")
    assert why_not(now, "db") == "needs 1 CPU in whole cores; 0 are left to bound pods"


def test_with_nothing_in_our_hands_there_is_nothing_to_set() -> None:
    everything = CpuSet(range(4))
    assert Life(TWO_BY_TWO, hands_off=everything).step().shared == ""
    assert (
        place(Topology(), (), None, {}, batch_cores=1, batch_floor_cpus=1, hands_off=CpuSet()) == Placement()
    )


def test_mid_has_a_pool_of_its_own_if_that_leaves_a_core_to_ls() -> None:
    now = Life(FOUR_NODES, mid_cpus=30).step()
    assert len(cpu_ids(now.mid)) == 30 and not cpu_ids(now.mid) & cpu_ids(now.shared)
    tight = Life(TWO_CPUS, mid_cpus=2).step()
    assert (tight.shared, tight.mid) == ("1", "0")
    tight = Life(TWO_CPUS, mid_cpus=2).arrive(BindRequest("db", 1))
    assert tight.shared == tight.mid == "0"


def test_who_does_not_fit_moves_nobody() -> None:
    life = Life(FOUR_NODES, batch_cores=20)
    before = life.arrive(BindRequest("a", 60), BindRequest("b", 40))
    now = life.arrive(BindRequest("c", 50))
    assert replace(now, unplaced=()) == before


def test_a_request_that_asks_for_nothing_is_told_so() -> None:
    assert why_not(Life(FOUR_NODES).arrive(BindRequest("none", 0)), "none") == "asks for no CPU"


def test_a_lost_core_is_made_up_for_on_the_same_node() -> None:
    life = Life(FOUR_NODES)
    before = cpu_ids(cpus_of(life.arrive(BindRequest("db", 8), BindRequest("web", 8)))["db"])
    lost = min(before)
    life.topology = without(FOUR_NODES, lost)
    after = cpu_ids(cpus_of(life.step())["db"])
    assert len(before - after) == 2, "the offline CPU and its sibling, which is no whole core's worth"
    assert len(after) == 8 and life.node_of(after) == life.node_of(before)


def test_a_sibling_that_comes_online_joins_its_core() -> None:
    life = Life(without(TWO_BY_TWO_SMT, 7))
    assert cpus_of(life.arrive(BindRequest("db", 3))) == {"db": "4-6"}
    life.topology = TWO_BY_TWO_SMT
    assert cpus_of(life.step()) == {"db": "4-7"}


def test_when_the_pools_lose_their_last_core_the_smallest_pod_makes_room() -> None:
    life = Life(TWO_BY_TWO)
    assert cpus_of(life.arrive(BindRequest("a", 2), BindRequest("b", 1))) == {"a": "2-3", "b": "1"}
    life.topology = without(TWO_BY_TWO, 0)
    now = life.step()
    assert cpus_of(now) == {"a": "2-3"} and now.shared == now.batch == "1"


def test_a_pod_that_asks_for_less_gives_cores_back_and_for_more_grows_where_it_is() -> None:
    life = Life(FOUR_NODES)
    life.arrive(BindRequest("db", 8))
    large = cpu_ids(cpus_of(life.placement or Placement())["db"])
    life.requests = (BindRequest("db", 4),)
    small = cpu_ids(cpus_of(life.step())["db"])
    assert small < large and len(small) == 4
    life.requests = (BindRequest("db", 10),)
    larger = cpu_ids(cpus_of(life.step())["db"])
    assert small < larger and len(larger) == 10


def test_a_restart_with_the_same_placement_moves_nothing_and_a_lost_one_is_found_again() -> None:
    life = Life(EIGHT_NODES, batch_cores=31)
    before = life.arrive(*(BindRequest(f"pod-{n}", 3 + n) for n in range(9)))
    assert life.step() == before
    assert Life(EIGHT_NODES, life.requests, batch_cores=31).step() == before


def test_batch_gives_up_only_the_cores_that_a_bound_pod_takes() -> None:
    life = Life(TWO_SOCKETS, batch_cores=128)
    before = cpu_ids(life.step().batch)
    now = life.arrive(BindRequest("db", 16))
    after, taken = cpu_ids(now.batch), cpu_ids(cpus_of(now)["db"])
    assert not before & taken, "there was room beside Batch"
    assert len(before ^ after) == 8, "two cores go to the other node, where now more is free"


def test_defragmentation_puts_a_scattered_pod_on_one_node_and_moves_nobody_else() -> None:
    life = Life(FOUR_NODES)
    for n in range(4):
        life.arrive(BindRequest(f"pod-{n}", 18 + 2 * n))
    assert len(cpu_ids(mems_of(life.arrive(BindRequest("wide", 24)))["wide"])) == 2
    before = life.leave("pod-0")
    assert len(cpu_ids(mems_of(before)["wide"])) == 2, "without request nobody moves"
    now = life.step(defragment=True)
    assert len(cpu_ids(mems_of(now)["wide"])) == 1
    assert [placed for placed in now.bound if placed.uid != "wide"] == list(before.bound)[:-1]
    assert life.step(defragment=True) == now


@pytest.mark.parametrize("batch_cores", [-1.0, 0.0, 0.3, 1e9, float("inf")])
def test_batch_is_never_empty_and_never_more_than_there_is(batch_cores: float) -> None:
    now = Life(TWO_BY_TWO_SMT, batch_cores=min(batch_cores, 8)).step()
    same = place(
        TWO_BY_TWO_SMT, (), None, {}, batch_cores=batch_cores, batch_floor_cpus=1, hands_off=CpuSet()
    )
    assert now.batch == same.batch
    assert len(cpu_ids(same.batch)) == (8 if batch_cores > 1 else 2)


def test_the_largest_remainder_is_rounded_up_when_batch_is_spread() -> None:
    life = Life(FOUR_NODES, (BindRequest("db", 16),), batch_cores=12)
    batch = cpu_ids(life.step().batch)
    assert [len(batch & set(node.cpus)) // 2 for node in FOUR_NODES.nodes] == [2, 2, 1, 1]


def test_a_pod_that_becomes_exclusive_leaves_a_node_that_others_are_on() -> None:
    life = Life(FOUR_NODES)
    before = life.arrive(BindRequest("db", 2), BindRequest("web", 2))
    assert mems_of(before) == {"db": "3", "web": "3"}
    life.requests = (BindRequest("db", 2, exclusive=True), BindRequest("web", 2))
    now = life.step()
    assert mems_of(now) == {"db": "2", "web": "3"}
    assert cpus_of(now)["web"] == cpus_of(before)["web"]


def test_a_bound_pod_takes_cores_beside_batch_where_there_are_any() -> None:
    life = Life(TWO_BY_TWO, batch_cores=2)
    life.placement = Placement(shared="0-3", mid="0-3", batch="1,3", batch_mems="0-1", shared_mems="0-1")
    now = life.arrive(BindRequest("db", 1))
    assert cpus_of(now) == {"db": "2"} and now.batch == "1,3"


def test_what_a_wide_pod_leaves_over_is_beside_others() -> None:
    life = Life(FOUR_NODES)
    life.arrive(BindRequest("db", 20))
    wide = cpu_ids(cpus_of(life.arrive(BindRequest("wide", 40)))["wide"])
    assert [len(wide & set(node.cpus)) for node in FOUR_NODES.nodes] == [0, 0, 32, 8]
