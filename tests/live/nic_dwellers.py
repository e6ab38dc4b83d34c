"""A program: puts processes that do nothing into network namespaces and cgroups; ends them with its input.

Line: NAMESPACE DIR DIR ...   a new process in that namespace and these cgroups; the answer is its pid.
Line: end PID                 ends it; the answer is its pid, once it is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def dwell(namespace: str, directories: list[str]) -> int:
    """The pid of a new process there; it has entered everything when this returns."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for directory in directories:
            with open(f"{directory}/cgroup.procs", "w") as procs:
                procs.write("0")
        file = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        if libc.setns(file, _CLONE_NEWNET) != 0:
            os._exit(1)
        os.close(file)
        os.write(writing, b".")
        os.close(writing)
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b".", f"{namespace}: not entered"
    os.close(reading)
    return pid


def main() -> None:
    """Answer each line."""
    alive: set[int] = set()
    for line in iter(sys.stdin.readline, ""):
        first, *others = line.split()
        if first == "end":
            pid = int(others[0])
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            alive.discard(pid)
        else:
            pid = dwell(first, others)
            alive.add(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
