"""The ring of events: what is lost to a reader is counted, whichever events drove it out."""

from __future__ import annotations

import time

import pytest

from nodeagent.model.event import Event
from nodeagent.rpc.explain_calls import _no_such
from nodeagent.rpc.ring import SIZE, TICKS, Reader, Ring, _told
from nodeagent.v1.event_pb2 import EVENT_LEVEL_INFO

QUIET, LOUD = Event("debug", "knob.applied", {}), Event("info", "batch.limit", {})


def filled(*levels: Event) -> Ring:
    ring = Ring()
    for seq, event in enumerate(levels):
        ring.post(seq, 0.0, [event])
        ring.take()
    return ring


@pytest.mark.parametrize("after", [0, 1, 299, 300, 301, 487, 488, 489, 999, 1000])
def test_no_event_is_lost_without_being_counted(after: int) -> None:
    ring = filled(*[QUIET] * 300, *[LOUD] * 700)
    taken, missed, _ = Reader(ring, (), EVENT_LEVEL_INFO, after).read(1 << 30)
    assert missed + len(taken) == 1000 - max(300, after)


@pytest.mark.parametrize("after", range(0, 1500, 100))
def test_where_levels_are_mixed_no_less_is_told_than_is_lost(after: int) -> None:
    ring = filled(*[LOUD, QUIET, LOUD] * 500)
    taken, missed, _ = Reader(ring, (), EVENT_LEVEL_INFO, after).read(1 << 30)
    assert missed + len(taken) >= sum(n % 3 != 2 for n in range(after + 1, 1501))
    assert missed + len(taken) <= 1500 - after


def test_what_the_server_s_thread_never_saw_is_counted_too() -> None:
    ring = filled(LOUD, LOUD)
    for seq in range(TICKS + 5):
        ring.post(seq, 0.0, [LOUD] * 2)
    ring.take()
    for after, lost in ((0, 12), (2, 10), (7, 5), (12, 0), (13, 0)):
        taken, missed, _ = Reader(ring, (), EVENT_LEVEL_INFO, after).read(1 << 30)
        assert missed == lost, after
        assert len(taken) == min(2 * TICKS, ring.last - after) <= SIZE


def test_whole_numbers_are_told_to_the_last_digit() -> None:
    assert _told(1_234_567_890_123) == "1234567890123"
    assert _told(0.1 + 0.2) == "0.3"


def test_a_name_that_is_wrong_costs_little_among_many_pods() -> None:
    names = [f"payments-batch-worker-{n * 7919:0100x}" for n in range(500)]
    since = time.thread_time()
    assert "did you mean payments-batch" in _no_such(names, names[3][:-1])
    assert time.thread_time() - since < 0.1
