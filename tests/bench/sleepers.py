"""A program: forks one child per line of stdin, into the cgroups named there; ends them all at end of input.

Line: WAKE_MS DIR DIR ...   A child with WAKE_MS 0 sleeps; else it works for about 50 us each WAKE_MS.
With the argument "netns" each has a network namespace of its own.
"""

import ctypes
import gc
import os
import signal
import sys
import time

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


def child(wake_ms: int, directories: list[str], ready: int) -> None:
    """In the new process: die with the parent, enter the cgroups, say so, live."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if "netns" in sys.argv[1:] and libc.unshare(_CLONE_NEWNET) != 0:
        os._exit(1)
    for directory in directories:
        with open(f"{directory}/cgroup.procs", "w") as procs:
            procs.write("0")
    os.write(ready, b".")
    os.close(ready)
    if not wake_ms:
        signal.pause()
    dirtied = bytearray(1 << 16)
    while True:
        time.sleep(wake_ms / 1000)
        for page in range(0, len(dirtied), 64):
            dirtied[page] = (dirtied[page] + 1) & 255


def main() -> None:
    """Print "ready" once all children are in their cgroups."""
    wanted = []
    for line in iter(sys.stdin.readline, "\n"):
        wake_ms, *directories = line.split()
        wanted.append((int(wake_ms), directories))
    gc.freeze()
    reading, writing = os.pipe()
    children = []
    for wake_ms, directories in wanted:
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            child(wake_ms, directories, writing)
        children.append(pid)
    os.close(writing)
    arrived = 0
    while arrived < len(children) and (said := os.read(reading, 4096)):
        arrived += len(said)
    print("ready" if arrived == len(children) else f"only {arrived} arrived", flush=True)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
