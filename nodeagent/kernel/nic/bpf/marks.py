"""Whose traffic is in which class, by the eBPF program `classify` at each shaped NIC.

All NICs run one program with one set of maps: an entry that is written once holds for all of them.
Invariant: a program is attached only after its maps are as wanted, and a change of them only ever writes
differences; so no packet is without its class meanwhile.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Collection, Mapping

from nodeagent.kernel.nic.bpf import call
from nodeagent.kernel.nic.bpf.assemble import assemble
from nodeagent.kernel.nic.bpf.attach import (
    CLASSIFY,
    Filter,
    attach,
    detach,
    detach_everywhere,
    filters,
    named,
)
from nodeagent.kernel.nic.bpf.classify import LEVELS, PROGRAM
from nodeagent.kernel.nic.clsact import Clsact
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.model.errors import AgentError, Gone, Refused
from nodeagent.model.nic import Marks, classid

Wanted = Mapping[str, Mapping[bytes, bytes]]
# kind, bytes of key and of value, entries
SHAPES = {
    "na_levels": (call.ARRAY, 4, 4, 1),
    "na_cgroups": (call.HASH, 8, 4, 1 << 14),
    "na_ipv4": (call.HASH, 4, 4, 1 << 14),
    "na_ipv6": (call.HASH, 16, 4, 1 << 14),
}
NAME = named(CLASSIFY, PROGRAM, SHAPES)


class BpfMarks:
    """The classifier step `bpf`. Methods raise Unsupported and Refused."""

    def __init__(self) -> None:
        self._link = Rtnetlink()
        self._maps: dict[str, call.Map] = {}
        self._there: dict[str, dict[bytes, bytes]] = {}
        self._program: tuple[int, int] | None = None  # descriptor, id
        self._nics: set[int] = set()

    def set(self, marks: Marks, indexes: Collection[int]) -> int:
        """See that packets get these classes on these NICs and no others; how much was written.

        Raises Gone for a NIC that vanished, and Refused for a cgroup that is deeper than the program looks,
        after all the others are done.
        """
        wanted = wanted_maps(marks)
        self._adopt()
        if self._program is None:
            self._load()
        writes = self._write(wanted)
        failed: AgentError | None = too_deep(marks)
        for index in sorted(self._nics | set(indexes)):
            try:
                writes += self._attach(index) if index in indexes else self._detach(index)
            except AgentError as error:
                failed = failed or error
        if failed:
            raise failed
        return writes

    def remove(self) -> bool:
        """Take the program from every NIC of this network namespace; True if there was any."""
        found = detach_everywhere(self._link, CLASSIFY)
        self._nics.clear()
        self._forget()
        return found

    def close(self) -> None:
        """What is attached stays."""
        self._forget()
        self._link.close()

    def _adopt(self) -> None:
        """Find what an agent before us has left: its NICs, and its program if that is this version's."""
        if self._program is not None:
            return
        for index in Clsact(self._link).seen():
            for each in filters(self._link, index):
                if each.step == CLASSIFY:
                    self._nics.add(index)
                    self._take(each)

    def _take(self, held: Filter) -> None:
        if self._program is not None or held.name != NAME or held.program is None:
            return
        try:
            fd = call.program_by_id(held.program)
        except (Gone, Refused):
            return  # without CAP_SYS_ADMIN: a new one will replace it
        self._program = fd, held.program
        try:
            self._maps = call.maps_by_program(fd)
            self._there = {name: dict(each.items()) for name, each in self._maps.items()}
        except BaseException:
            self._forget()
            raise

    def _load(self) -> None:
        try:
            for name, shape in SHAPES.items():
                self._maps[name] = call.create_map(shape[0], name, *shape[1:])
            self._there = {name: dict(each.items()) for name, each in self._maps.items()}
            fd = call.load_program(
                "na_classify", assemble(PROGRAM, {name: each.fd for name, each in self._maps.items()})
            )
            self._program = fd, call.program_id(fd)
        except BaseException:
            self._forget()
            raise

    def _write(self, wanted: Wanted) -> int:
        writes = 0
        for name, entries in wanted.items():
            there, written = self._there[name], self._maps[name]
            for key in there.keys() - entries.keys():
                written.delete(key)
                del there[key]
                writes += 1
            for key, value in entries.items():
                if there.get(key) != value:
                    written.update(key, value)
                    there[key] = value
                    writes += 1
        return writes

    def _attach(self, index: int) -> int:
        assert self._program is not None
        fd, program = self._program
        ours = [each for each in filters(self._link, index) if each.step == CLASSIFY]
        if [(each.name, each.program) for each in ours] == [(NAME, program)]:
            return 0
        try:
            attach(self._link, index, NAME, fd)
        except Gone:
            self._nics.discard(index)
            raise
        self._nics.add(index)
        return 1

    def _detach(self, index: int) -> int:
        writes = detach(self._link, CLASSIFY, index)
        self._nics.discard(index)
        return int(writes)

    def _forget(self) -> None:
        for each in self._maps.values():
            each.close()
        if self._program is not None:
            os.close(self._program[0])
        self._maps, self._there, self._program = {}, {}, None


def wanted_maps(marks: Marks) -> dict[str, dict[bytes, bytes]]:
    """The maps as they shall be, for all cgroups where the program looks."""
    wanted: dict[str, dict[bytes, bytes]] = {name: {} for name in SHAPES}
    levels = 0
    for level, cgroup_id, qos in marks.cgroups:
        if level in LEVELS:
            levels |= 1 << level
            wanted["na_cgroups"][struct.pack("=Q", cgroup_id)] = struct.pack("=I", classid(qos))
    for text, qos in marks.addresses:
        address = ipaddress.ip_address(text)
        wanted[f"na_ipv{address.version}"][address.packed] = struct.pack("=I", classid(qos))
    wanted["na_levels"][struct.pack("=I", 0)] = struct.pack("=I", levels)
    return wanted


def too_deep(marks: Marks) -> Refused | None:
    """What to raise for the cgroups where the program does not look."""
    levels = [level for level, _, _ in marks.cgroups if level not in LEVELS]
    if not levels:
        return None
    return Refused(
        f"{len(levels)} cgroups at levels where eBPF does not look ({LEVELS[0]} to {LEVELS[-1]} only)"
    )
