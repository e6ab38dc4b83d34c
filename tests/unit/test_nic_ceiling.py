"""Batch's ceiling on a NIC: what online traffic does to it, beat by beat."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.nic.ceiling import followed
from nodeagent.model.nic_policy import NicRule, RoleBy
from tests.unit.nic_node import GBIT, NicNode, classes, policy

TOP = 0.95 * GBIT
PRESSED = 0.10 * TOP
RATES = st.floats(0.0, GBIT)


def node(**values: object) -> NicNode:
    return NicNode(policy(NicRule(match="eth0", **values)))  # type: ignore[arg-type]


def test_a_new_tree_begins_pressed_and_goes_up_in_steps_while_the_link_is_idle() -> None:
    nic = node()
    assert nic.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)
    seen = []
    for _ in range(40):
        nic.beat()
        seen.append(nic.ceiling_bps)
    steps = [after / before for before, after in itertools.pairwise(seen) if after != before]
    assert seen[-1] == TOP and max(steps) < 1.2501


def test_online_traffic_takes_the_link_back_within_one_beat() -> None:
    nic = node()
    for _ in range(12):
        nic.second()
    nic.beat(ls_bps=0.3 * TOP)
    assert nic.ceiling_bps == pytest.approx(TOP * (1 - 0.45 - 0.2), rel=1e-6)
    nic.beat(ls_bps=0.8 * TOP)
    assert nic.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)


def test_a_little_online_traffic_leaves_batch_the_link() -> None:
    nic = node()
    for _ in range(12):
        nic.second(ls_bps=0.04 * TOP)
    assert nic.ceiling_bps == TOP


def test_the_ceiling_returns_only_after_calm_beats() -> None:
    nic = node()
    for _ in range(12):
        nic.second()
    nic.beat(ls_bps=0.8 * TOP)
    for _ in range(2):
        nic.beat()
        assert nic.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)
    nic.beat()
    assert nic.ceiling_bps == pytest.approx(1.25 * PRESSED, rel=1e-6)


def test_without_counters_the_ceiling_is_the_pressed_one() -> None:
    nic = node()
    for _ in range(12):
        nic.second()
    nic.blind(1.0)
    assert nic.ceiling_bps == TOP
    nic.blind(1.5)
    assert nic.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)
    law = nic.known["eth0"].egress
    assert law is not None and law.why.startswith("no counters for")


def test_ls_packets_that_wait_twice_cost_batch_a_step() -> None:
    nic = node()
    for _ in range(12):
        nic.second()
    nic.beat(backlog=1_000_000)
    assert nic.ceiling_bps == TOP
    nic.beat(backlog=1_000_000)
    assert nic.ceiling_bps == pytest.approx(TOP / 1.25, rel=1e-6)


def test_mid_traffic_counts_as_online_on_a_bulk_nic_only() -> None:
    shared, bulk = node(), node(role=RoleBy.BULK)
    for each in (shared, bulk):
        for _ in range(12):
            each.second(mid_bps=0.5 * TOP)
    assert shared.ceiling_bps == TOP
    assert bulk.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)


def test_the_guarantee_of_ls_follows_what_it_sends_and_all_guarantees_fit_below_the_top() -> None:
    nic = node(ls_ratio=0.1, mid_ratio=0.6, batch_ratio=0.05)
    for _ in range(40):
        nic.second(ls_bps=0.4 * TOP)
    ls, mid, batch = (c.rate_bps for c in nic.tree.classes)
    assert ls == pytest.approx(0.6 * TOP, rel=0.01)
    assert batch == pytest.approx(0.05 * TOP, rel=1e-6)
    assert ls + mid + batch <= TOP
    for _ in range(100):
        nic.second()
    assert nic.tree.classes[0].rate_bps == pytest.approx(0.1 * TOP, rel=1e-6)


def test_counters_that_begin_anew_change_nothing() -> None:
    nic = node()
    for _ in range(12):
        nic.second(ls_bps=0.5 * TOP)
    before = nic.ceiling_bps
    nic._sent = [0, 0, 0]
    nic.beat()
    assert nic.ceiling_bps == before


@given(st.lists(st.tuples(RATES, RATES, RATES), max_size=30), st.sampled_from(list(RoleBy)))
def test_the_ceiling_stays_in_its_bounds_and_a_tick_has_the_beats_before_it(
    rates: list[tuple[float, float, float]], role: RoleBy
) -> None:
    nic = node(role=role, batch_ceiling_ratio=0.8)
    for ls, mid, batch in rates:
        nic.beat(ls_bps=ls, mid_bps=mid, batch_bps=batch)
        assert PRESSED * 0.999 <= nic.ceiling_bps <= 0.8 * TOP
        assert sum(c.rate_bps for c in nic.tree.classes) <= TOP
    live = nic.live
    nic.tick()
    assert nic.shaping == live


@given(st.lists(RATES, min_size=1, max_size=20), st.floats(0.0, GBIT))
def test_more_online_traffic_never_gives_batch_more(rates: list[float], more_bps: float) -> None:
    one, other = node(), node()
    for rate in rates:
        one.beat(ls_bps=rate)
        other.beat(ls_bps=rate)
    one.beat(ls_bps=rates[-1])
    other.beat(ls_bps=rates[-1] + more_bps)
    assert other.ceiling_bps <= one.ceiling_bps


def test_a_sample_without_all_classes_never_opens_the_link_and_is_no_news() -> None:
    nic = node()
    for _ in range(12):
        nic.second(ls_bps=0.8 * TOP)
    law = nic.known["eth0"].egress
    assert law is not None
    rule, seen = nic.policy.nics[0], classes([0, 0, 0], nic.tree)[1:]
    for beat in range(20):
        law = followed(law, (law.at or 0.0) + 0.1 * beat, seen, rule, nic.policy.nic, TOP)
    assert law == nic.known["eth0"].egress


def test_two_looks_within_milliseconds_are_one() -> None:
    nic = node()
    for _ in range(12):
        nic.second()
    law = nic.known["eth0"].egress
    assert law is not None and law.at is not None and law.ceiling_bps == TOP
    sent = law.bytes[0] + 65_536  # one frame of LS: 100 Mbit/s over 5 ms, and 5 over 100
    rule, beats = nic.policy.nics[0], nic.policy.nic
    soon = followed(law, law.at + 0.005, classes([sent, *law.bytes[1:]], nic.tree), rule, beats, TOP)
    assert soon == law
    later = followed(soon, law.at + 0.1, classes([sent, *law.bytes[1:]], nic.tree), rule, beats, TOP)
    assert later.ceiling_bps == TOP and later.at == law.at + 0.1


def test_a_tick_has_what_the_beats_did_while_the_nic_could_not_be_read() -> None:
    nic = NicNode(policy(NicRule(match="eth0"), stale_s=0.5))
    for _ in range(12):
        nic.second()
    assert nic.ceiling_bps == TOP
    for _ in range(3):
        nic.unread()
    assert nic.ceiling_bps == pytest.approx(PRESSED, rel=1e-6)
    nic.beat()
    live = nic.live
    nic.tick()
    assert nic.shaping == live and nic.ceiling_bps < TOP


def test_limits_that_are_taken_anew_hold_at_once() -> None:
    nic = node(ls_ratio=0.6)
    for _ in range(12):
        nic.second()
    assert nic.ceiling_bps == TOP
    nic.policy = policy(NicRule(match="eth0", ls_ratio=0.5, batch_ceiling_ratio=0.97))
    nic.second()
    assert nic.ceiling_bps <= 0.97 * TOP
    assert nic.tree.classes[0].rate_bps == pytest.approx(0.5 * TOP, rel=1e-6)
