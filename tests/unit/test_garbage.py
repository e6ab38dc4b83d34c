"""Cycles are found when the loop has nothing to do. In a process of its own: it is set for all of one."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import gc, weakref
from nodeagent.garbage import TIDY_S, Garbage

class Call:
    pass

def ended_call():
    call = Call()
    call.itself = call  # as a task and the traceback of its cancellation hold each other
    return call, weakref.ref(call)

before = len(gc.get_objects())
garbage = Garbage(100.0)
call, gone = ended_call()
gc.collect(0), gc.collect(1)  # it outlives two looks of Python's own: so it counts as old
del call
_young = [[] for _ in range(200_000)]  # and what a day of clients allocates does not lead to another one
print("left by Python" if gone() else "taken by Python")
garbage.after_tick(100.0 + TIDY_S - 0.1)
print("still there" if gone() else "gone too early")
garbage.after_tick(100.0 + TIDY_S)
print("still there" if gone() else "gone")
print("the start is left out" if gc.get_freeze_count() > 0.9 * before else "all is looked at")
"""


def test_what_has_outlived_a_look_is_found_at_the_next_one_after_a_tick() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["left by Python", "still there", "gone", "the start is left out"]
