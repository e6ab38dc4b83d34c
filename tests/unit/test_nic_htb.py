"""What is written for a tree, and what is read of one, as bytes and as steps."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel.nic import htb
from nodeagent.kernel.nic.htb import Counts, Held, Parms, Queue
from nodeagent.kernel.nic.htb_steps import DEFAULT, ROOT, TC_H_ROOT, TOP, Shape, is_ours, steps
from nodeagent.kernel.nic.rtnetlink import TCMSG, attribute, attributes, tcmsg
from nodeagent.model.errors import Garbled
from nodeagent.model.nic import HtbClass, Tree
from nodeagent.model.pod import Qos

NOTHING = Counts(0, 0, 0, 0, 0)
STATS = attribute(1, struct.pack("=QI", 7, 3)) + attribute(3, struct.pack("=5I", 1, 900, 4, 0, 5))
TREE = Tree(
    1e9,
    125_000,
    (
        HtbClass(Qos.LS, 6e8, 1e9, 0, 75_000, 125_000, 75_000),
        HtbClass(Qos.MID, 3e8, 1e9, 1, 37_500, 125_000, 37_500),
        HtbClass(Qos.BATCH, 5e7, 1e9, 2, 16_384, 125_000, 6_250, queue_bytes=2_000_000),
    ),
)
OURS = Queue(2, ROOT, TC_H_ROOT, "htb", default=DEFAULT)
LEAF = Queue(2, 0x4E540000, ROOT | 0x30, "bfifo", limit=2_000_000)
FIFOS = [Queue(2, n << 16, ROOT | m, "pfifo", limit=1000) for n, m in ((0x4E52, 0x10), (0x4E53, 0x20))]
LEAVES = {each.parent: each for each in (LEAF, *FIFOS)}


def message(parms: Parms, stats: bytes = STATS) -> bytes:
    """As the kernel answers: what is written, and counters."""
    return tcmsg(2, ROOT | 0x30, TOP) + htb.class_attributes(parms) + attribute(7, stats)


def as_wanted() -> dict[int, Held]:
    """The classes that TREE makes."""
    classes = {
        ROOT | minor: htb.class_parms(each) for minor, each in zip((16, 32, 48), TREE.classes, strict=True)
    }
    held = {handle: Held(handle, TOP, parms, NOTHING) for handle, parms in classes.items()}
    # of a class with others below it the kernel tells the quantum that it was made with
    top = htb.top_parms(TREE)._replace(quantum=1000, prio=3)
    return {TOP: Held(TOP, TC_H_ROOT, top, NOTHING), **held}


def words(shape: Shape, fq_codel: bool = False) -> list[str]:
    return [step.what for step in steps(shape, TREE, fq_codel)]


@given(
    rate=st.integers(1, 2**63),
    ceil=st.integers(1, 2**63),
    rest=st.tuples(*[st.integers(1, 2**32 - 1)] * 3),
    prio=st.integers(0, 7),
)
def test_what_is_written_is_what_is_read(rate: int, ceil: int, rest: tuple[int, int, int], prio: int) -> None:
    parms = Parms(rate, ceil, *rest, prio)
    held = htb.held_class(message(parms))
    assert held == Held(ROOT | 0x30, TOP, parms, Counts(7, 3, 4, 5, 900))


def test_bits_are_bytes_and_bursts_are_ticks_of_64_ns() -> None:
    assert htb.class_parms(TREE.classes[0]) == Parms(
        rate=75_000_000, ceil=125_000_000, buffer=15_625, cbuffer=15_625, quantum=75_000, prio=0
    )


@given(
    rate_bps=st.floats(1, 1e13),
    burst=st.integers(0, 2**40),
    quantum=st.integers(0, 200_000),
    prio=st.integers(0, 99),
)
def test_whatever_is_wanted_fits_into_what_the_kernel_keeps(
    rate_bps: float, burst: int, quantum: int, prio: int
) -> None:
    parms = htb.class_parms(HtbClass(Qos.LS, rate_bps, rate_bps, prio, burst, burst, quantum))
    assert parms.rate >= 1
    assert 1 <= parms.buffer <= 2**32 - 1
    assert 1 <= parms.quantum <= 200_000
    assert parms.prio <= 7
    htb.class_attributes(parms)


def test_packets_beyond_32_bits_are_told_apart() -> None:
    wide = STATS + attribute(8, struct.pack("=Q", 2**40))
    held = htb.held_class(message(Parms(1, 1, 1, 1, 1, 0), wide))
    assert held is not None
    assert held.counts.packets == 2**40


def test_a_class_of_another_kind_is_none() -> None:
    assert htb.held_class(tcmsg(2, ROOT | 1) + attribute(1, b"drr\0")) is None


def test_what_is_cut_off_is_garbled_wherever_it_is_cut() -> None:
    whole = message(Parms(2**33, 2**33, 1, 1, 1, 0))
    cut = [whole[:length] for length in range(TCMSG.size + 8, len(whole))]
    for part in cut:
        with pytest.raises(Garbled):
            htb.held_class(part)


@given(st.binary(max_size=200))
def test_noise_is_garbled_or_nothing_and_never_anything_else(noise: bytes) -> None:
    for reader in (attributes, htb.held_class, htb.held_queue):
        try:
            reader(noise)
        except Garbled:
            continue


def test_a_tree_is_made_from_the_top_down_and_each_class_gets_its_leaf() -> None:
    assert words(Shape(None, {}, {}), fq_codel=True) == [
        "add htb",
        "add class 4e51:1",
        "add class 4e51:10",
        "add fq_codel 4e52:",
        "add class 4e51:20",
        "add fq_codel 4e53:",
        "add class 4e51:30",
        "add bfifo 4e54:",
    ]


def test_nothing_is_written_when_it_is_as_wanted() -> None:
    assert words(Shape(OURS, as_wanted(), LEAVES)) == []


def test_without_fq_codel_no_leaf_is_left_to_the_device_whose_queue_may_have_no_room() -> None:
    assert words(Shape(OURS, as_wanted(), {LEAF.parent: LEAF})) == ["add pfifo 4e52:", "add pfifo 4e53:"]


def test_a_fifo_of_an_earlier_run_is_kept_for_what_waits_in_it() -> None:
    assert words(Shape(OURS, as_wanted(), LEAVES), fq_codel=True) == []


def test_classes_below_a_misplaced_one_go_first_and_come_back() -> None:
    classes = as_wanted()
    classes[TOP] = classes[TOP]._replace(parent=ROOT | 0x99)
    classes[ROOT | 0x99] = Held(ROOT | 0x99, TC_H_ROOT, htb.top_parms(TREE), NOTHING)
    assert words(Shape(OURS, classes, LEAVES)) == [
        "delete class 4e51:10",
        "delete class 4e51:20",
        "delete class 4e51:30",
        "delete class 4e51:1",
        "delete class 4e51:99",
        "add class 4e51:1",
        "add class 4e51:10",
        "add pfifo 4e52:",
        "add class 4e51:20",
        "add pfifo 4e53:",
        "add class 4e51:30",
        "add bfifo 4e54:",
    ]


def test_another_default_is_made_anew_for_the_kernel_cannot_change_it() -> None:
    assert words(Shape(OURS._replace(default=0x20), as_wanted(), {LEAF.parent: LEAF}))[:3] == [
        "delete htb",
        "add htb",
        "add class 4e51:1",
    ]


@pytest.mark.parametrize(
    "change", [{"handle": 0}, {"kind": "tbf"}, {"handle": ROOT + 0x10000}, {"parent": TOP}]
)
def test_only_an_htb_root_by_our_handle_is_ours(change: dict[str, object]) -> None:
    assert is_ours(OURS)
    assert not is_ours(OURS._replace(**change))  # type: ignore[arg-type] # any of the fields
