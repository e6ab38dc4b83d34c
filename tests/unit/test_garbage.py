"""Cycles are found between ticks, arenas are few. In processes of their own: both are set for all of one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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

ARENAS = """
import ctypes, sys, threading
from nodeagent.garbage import lean_allocator

if sys.argv[1:]:
    lean_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
all_here = threading.Barrier(6)

def allocate():
    all_here.wait()
    libc.malloc(ctypes.c_size_t(100_000))
    all_here.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def test_what_has_outlived_a_look_is_found_at_the_next_one_after_a_tick() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["left by Python", "still there", "gone", "the start is left out"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_two_arenas_instead_of_one_each() -> None:
    found = {}
    for words in ((), ("few",)):
        done = subprocess.run(
            [sys.executable, "-c", ARENAS, *words], check=True, capture_output=True, text=True
        )
        found[words] = done.stdout.count("<heap nr=")
    assert found["few",] == 2 < found[()]
