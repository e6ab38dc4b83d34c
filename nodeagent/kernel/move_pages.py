"""move_pages(2) and migrate_pages(2), which the C library does not wrap: where pages are, and moving them.

Invariant: never called with pid 0, which would mean ourselves. ctypes lets other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterable, Sequence

from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported

# asm/unistd_64.h of x86, asm-generic/unistd.h of the others
_GENERIC = (239, 238)
NUMBERS = {"x86_64": (279, 256), "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC}
_MASK_BITS = 1024  # CONFIG_NODES_SHIFT is at most 10
MOVE, MOVE_ALL = 1 << 1, 1 << 2  # linux/mempolicy.h: MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
PERMITS = (
    "give the agent CAP_SYS_NICE and CAP_SYS_PTRACE, and let its seccomp profile pass move_pages; until "
    "then the kernel moves the pages within the write of cpuset.mems"
)


class MovePages:
    """The system calls. Unsupported where they are not known.

    All methods raise Gone for a process that ended, Unsupported where the kernel or a permission lets
    us move no page at all, Refused where this process may not use the node.
    """

    def __init__(self) -> None:
        numbers = NUMBERS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        if numbers is None:
            raise Unsupported(f"move_pages: system call number not known on {platform.machine()}")
        self._move_pages, self._migrate_pages = numbers
        self._flags = MOVE_ALL
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def query(self, pid: int, addresses: Sequence[int]) -> Iterable[int]:
        """Of each address the NUMA node that its page is on; negative: there is no page (or -errno)."""
        statuses = (ctypes.c_int * len(addresses))()
        self._call(pid, addresses, None, statuses, MOVE)
        return statuses

    def move(self, pid: int, addresses: Sequence[int], node: int) -> bool:
        """Move what can be moved; ask again where the pages are. False: the node has no free memory now.

        Shared pages move if we are permitted to, a huge page as a whole. The kernel stops at the first page
        that fails to, so trying the rest again may be worth it.
        """
        nodes = (ctypes.c_int * len(addresses))(*[node] * len(addresses))
        statuses = (ctypes.c_int * len(addresses))()
        try:
            return self._call(pid, addresses, nodes, statuses, self._flags)
        except Unsupported:
            if self._flags == MOVE:
                raise
            done = self._call(pid, addresses, nodes, statuses, MOVE)
            self._flags = MOVE  # without CAP_SYS_NICE: pages that only this process maps
            return done

    def migrate(self, pid: int, old: Iterable[int], new: Iterable[int]) -> None:
        """Move all pages of the process on the `old` nodes to the `new` ones; returns when it is done."""
        if pid <= 0:
            raise ValueError(f"not a process: {pid}")
        done = self._syscall(
            ctypes.c_long(self._migrate_pages),
            ctypes.c_int(pid),
            ctypes.c_ulong(_MASK_BITS),
            _mask(old),
            _mask(new),
        )
        if done < 0:
            raise _error(ctypes.get_errno(), pid)

    def _call(
        self,
        pid: int,
        addresses: Sequence[int],
        nodes: ctypes.Array[ctypes.c_int] | None,
        statuses: ctypes.Array[ctypes.c_int],
        flags: int,
    ) -> bool:
        if pid <= 0:
            raise ValueError(f"not a process: {pid}")
        pages = (ctypes.c_void_p * len(addresses))(*addresses)
        done = self._syscall(
            ctypes.c_long(self._move_pages),
            ctypes.c_int(pid),
            ctypes.c_ulong(len(addresses)),
            pages,
            nodes,
            statuses,
            ctypes.c_int(flags),
        )
        code = ctypes.get_errno() if done < 0 else 0
        if code not in (0, errno.ENOMEM):
            raise _error(code, pid)
        return code == 0


def _mask(nodes: Iterable[int]) -> ctypes.Array[ctypes.c_char]:
    bits = sum(1 << node for node in nodes if node < _MASK_BITS - 1)
    return ctypes.create_string_buffer(bits.to_bytes(_MASK_BITS // 8, sys.byteorder), _MASK_BITS // 8)


def _error(code: int, pid: int) -> AgentError:
    line = f"moving pages of process {pid}: {os.strerror(code)}"
    if code in (errno.ESRCH, errno.EINVAL):  # EINVAL: it is ending and has no memory any more
        return Gone(line)
    if code in (errno.ENOSYS, errno.EPERM):
        return Unsupported(line, hint=PERMITS)
    return Refused(line)
