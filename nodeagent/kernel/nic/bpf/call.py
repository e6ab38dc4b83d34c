"""bpf(2), which the C library does not wrap: maps, programs, and finding both by id.

Struct layouts: Linux include/uapi/linux/bpf.h, union bpf_attr; the kernel takes what is missing at the end
as zero. Descriptors are closed on exec by the kernel.
Invariant: a buffer that the kernel fills is as large as the map's own description says.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator

from nodeagent.kernel.files import read_whole
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64le": 361}
_NUMBER = _NUMBERS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD = range(6)
_PROG_BY_ID, _MAP_BY_ID, _INFO = 13, 14, 15
HASH, ARRAY, PERCPU_ARRAY = 1, 2, 6
NO_PREALLOC = 1
_SCHED_CLS = 3
# No helper that the programs call is for GPL programs only; bpf_ktime_get_ns was until Linux kernel commit
# 082b57e3eb09 ("net: bpf: Make bpf_ktime_get_ns() available to non GPL programs") (in v5.8).
_LICENSE = b"Apache-2.0"
_LOG_BYTES = 1 << 16
_POSSIBLE = "/sys/devices/system/cpu/possible"
_PERMITS = (
    "give the agent CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN to find what is loaded), let its "
    "seccomp profile pass bpf(2), and before Linux 5.11 set LimitMEMLOCK=infinity"
)


class Map:
    """One map, by its descriptor; keys and values are bytes of its sizes.

    The methods raise Refused when the kernel refuses (a map that is full, no memory).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = _info(fd, 40)
        kind, self.id, self.key_bytes, self.value_bytes = struct.unpack_from("=IIII", info)
        self.name = info[24:40].partition(b"\0")[0].decode()
        if kind == PERCPU_ARRAY:
            self.value_bytes = (self.value_bytes + 7 & ~7) * _possible_cpus()

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key; of a per-CPU map the values of all possible CPUs, 8-byte aligned."""
        value = ctypes.create_string_buffer(self.value_bytes)
        done = self._element(_LOOKUP, key, value)
        return None if done is None else value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Make it so."""
        if len(value) != self.value_bytes:
            raise ValueError(f"{self.name} has values of {self.value_bytes} bytes")
        self._element(_UPDATE, key, ctypes.create_string_buffer(value, len(value)))

    def delete(self, key: bytes) -> None:
        """Forget the key, if it is there."""
        self._element(_DELETE, key, None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """What is in it; without end only if somebody adds faster than we read."""
        key: bytes | None = None
        while (key := self._next(key)) is not None:
            if (value := self.lookup(key)) is not None:
                yield key, value

    def close(self) -> None:
        """The map lives on in the programs that use it."""
        os.close(self.fd)

    def _next(self, key: bytes | None) -> bytes | None:
        following = ctypes.create_string_buffer(self.key_bytes)
        return None if self._element(_NEXT_KEY, key, following) is None else following.raw

    def _element(
        self, command: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None
    ) -> int | None:
        if key is not None and len(key) != self.key_bytes:
            raise ValueError(f"{self.name} has keys of {self.key_bytes} bytes")
        held = None if key is None else ctypes.create_string_buffer(key, len(key))
        attr = struct.pack("=IIQQQ", self.fd, 0, _address(held), _address(value), 0)
        try:
            return _bpf(command, attr, f"map {self.name}")
        except Gone:
            return None


def create_map(kind: int, name: str, key_bytes: int, value_bytes: int, entries: int) -> Map:
    """A new map, gone with its last descriptor and program; Unsupported, Refused."""
    flags = NO_PREALLOC if kind == HASH else 0
    sizes = (kind, key_bytes, value_bytes, entries, flags, 0, 0)
    return Map(_bpf(_MAP_CREATE, struct.pack("=7I16s", *sizes, name.encode()), f"map {name}"))


def load_program(name: str, text: bytes) -> int:
    """A descriptor of the verified program, for cls_bpf.

    Unsupported with the verifier's last words where this kernel does not take it, Refused without permission.
    """
    instructions = ctypes.create_string_buffer(text, len(text))
    license_ = ctypes.create_string_buffer(_LICENSE)
    log = ctypes.create_string_buffer(_LOG_BYTES)

    def attr(level: int) -> bytes:
        head = (_SCHED_CLS, len(text) // 8, _address(instructions), _address(license_), level)
        told = (_LOG_BYTES, _address(log)) if level else (0, 0)
        return struct.pack("=IIQQIIQII16s", *head, *told, 0, 0, name.encode())

    try:
        return _bpf(_PROG_LOAD, attr(0), f"program {name}")
    except Refused:
        try:  # once more, to be told why
            return _bpf(_PROG_LOAD, attr(1), f"program {name}")
        except Refused as error:
            lines = [line for line in log.value.decode("utf-8", "replace").splitlines() if line]
            if not lines:
                raise
            why = next((line for line in reversed(lines) if not line.startswith("processed ")), lines[-1])
            raise Unsupported(f"{error}: {why}", hint="this kernel's verifier does not take it") from error


def program_id(fd: int) -> int:
    """The id of a program, the same for as long as it lives."""
    number: int = struct.unpack_from("=I", _info(fd, 8), 4)[0]
    return number


def program_by_id(number: int) -> int:
    """A descriptor; Gone when there is none, Refused without CAP_SYS_ADMIN."""
    return _bpf(_PROG_BY_ID, struct.pack("=III", number, 0, 0), f"program {number}")


def maps_by_program(fd: int, most: int = 16) -> dict[str, Map]:
    """The maps that a program uses, by their names."""
    ids = (ctypes.c_uint32 * most)()
    info = bytearray(64)
    struct.pack_into("=IQ", info, 52, most, ctypes.addressof(ids))
    (count,) = struct.unpack_from("=I", _info(fd, len(info), bytes(info)), 52)
    found: dict[str, Map] = {}
    for number in ids[: min(count, most)]:
        each = Map(_bpf(_MAP_BY_ID, struct.pack("=III", number, 0, 0), f"map {number}"))
        found[each.name] = each
    return found


def _info(fd: int, size: int, asked: bytes = b"") -> bytes:
    buffer = ctypes.create_string_buffer(asked, size)
    _bpf(_INFO, struct.pack("=IIQ", fd, size, ctypes.addressof(buffer)), f"descriptor {fd}")
    return buffer.raw


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _possible_cpus() -> int:
    return len(CpuSet.parse(read_whole(_POSSIBLE).decode()))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def _bpf(command: int, attr: bytes, what: str) -> int:
    if _NUMBER is None:
        raise Unsupported(f"bpf: system call number not known on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attr, len(attr))
    done: int = _syscall(ctypes.c_long(_NUMBER), ctypes.c_int(command), buffer, ctypes.c_uint(len(attr)))
    if done < 0:
        raise _error(ctypes.get_errno(), what)
    return done


def _error(code: int, what: str) -> AgentError:
    line = f"bpf: {what}: {os.strerror(code)}"
    if code == errno.ENOENT:
        return Gone(line)
    if code == errno.ENOSYS:
        return Unsupported(line, hint="this kernel was built without CONFIG_BPF_SYSCALL")
    if code == errno.E2BIG:
        return Refused(line, hint="more entries than the map holds")
    return Refused(line, hint=_PERMITS if code in (errno.EPERM, errno.EACCES) else "")
