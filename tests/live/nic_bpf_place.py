"""A host with one NIC, a routed pod behind it and a peer before it, each a network namespace of the test's.

    pod eth0 10.78.0.2 -- pod0 10.78.0.1 [host] nic0 10.77.0.1 -- 10.77.0.2 wire0 peer

The test itself is in the host's namespace for as long as the place is there.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from nodeagent.kernel.mounts import find_hierarchies

_NEW_NET = 0x40000000  # CLONE_NEWNET
SEND = """
import socket, sys
family, to, count, size, priority = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
with socket.socket(getattr(socket, family), socket.SOCK_DGRAM) as udp:
    if priority:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
    for _ in range(count):
        udp.sendto(bytes(size), (to, 9))
"""


def shell(text: str) -> str:
    """The output of commands, one a line; CalledProcessError when one fails."""
    done = subprocess.run(["sh", "-ec", text], check=True, capture_output=True, text=True)
    return done.stdout


class Place(NamedTuple):
    """The names of the namespaces, and the index of nic0."""

    peer: str
    pod: str
    nic: int

    def send(
        self,
        count: int,
        to: str = "10.77.0.2",
        *,
        cgroup: Path | None = None,
        pod: bool = False,
        priority: int = 0,
        size: int = 100,
    ) -> None:
        """UDP packets to the peer: of a process that was born in the cgroup, or of one in the pod."""
        family = "AF_INET6" if ":" in to else "AF_INET"
        words = [sys.executable, "-c", SEND, family, to, str(count), str(size), str(priority)]
        if pod:
            words = ["ip", "netns", "exec", self.pod, *words]
        if cgroup is not None:
            words = ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh", *words]
        subprocess.run(words, check=True)

    def packets(self) -> dict[int, int]:
        """Packets in each HTB class of nic0, by its minor."""
        found = re.findall(
            r"class htb 4e51:(\w+) .*\n Sent \d+ bytes (\d+) pkt", shell("tc -s class show dev nic0")
        )
        return {int(minor, 16): int(count) for minor, count in found}

    def egress(self) -> str:
        """Everything at clsact and at the root of nic0, as tc tells it."""
        return shell(
            "tc -d qdisc show dev nic0; tc -d filter show dev nic0 egress; tc -d filter show dev nic0 ingress"
            "; tc chain show dev nic0 egress; tc chain show dev nic0 ingress"
        )


@contextmanager
def placed(queues: int = 1) -> Iterator[Place]:
    """The place, gone on leaving. Skips where there is no root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    names = [f"na-{os.getpid()}-{name}" for name in ("host", "peer", "pod")]
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        shell("\n".join(f"ip netns add {name}" for name in names))
        inside = os.open(f"/run/netns/{names[0]}", os.O_RDONLY | os.O_CLOEXEC)
        _enter(inside)
        os.close(inside)
        yield Place(names[1], names[2], _wire(names[1], names[2], queues))
    finally:
        _enter(outside)
        os.close(outside)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _wire(peer: str, pod: str, queues: int) -> int:
    """Static neighbours and no duplicate address detection: the first packet already leaves."""
    shell(f"""
        ip link set lo up
        ip link add nic0 address 02:00:00:00:00:01 numtxqueues {queues} numrxqueues {queues} \
            type veth peer name wire0 address 02:00:00:00:00:02 netns {peer}
        ip link add pod0 address 02:00:00:00:00:03 type veth \
            peer name eth0 address 02:00:00:00:00:04 netns {pod}
        ip addr add 10.77.0.1/24 dev nic0
        ip addr add fd77::1/64 dev nic0 nodad
        ip addr add 10.78.0.1/24 dev pod0
        ip addr add fd78::1/64 dev pod0 nodad
        ip link set nic0 up
        ip link set pod0 up
        ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev nic0
        ip neigh add fd77::2 lladdr 02:00:00:00:00:02 dev nic0
        ip -n {peer} link set wire0 up
        ip -n {peer} addr add 10.77.0.2/24 dev wire0
        ip -n {peer} addr add fd77::2/64 dev wire0 nodad
        ip -n {pod} link set eth0 up
        ip -n {pod} addr add 10.78.0.2/24 dev eth0
        ip -n {pod} addr add fd78::2/64 dev eth0 nodad
        ip -n {pod} neigh add 10.78.0.1 lladdr 02:00:00:00:00:03 dev eth0
        ip -n {pod} neigh add fd78::1 lladdr 02:00:00:00:00:03 dev eth0
        ip -n {pod} route add default via 10.78.0.1
        ip -n {pod} -6 route add default via fd78::1
        echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    """)
    return int(shell("ip -o link show nic0").partition(":")[0])


def htb() -> None:
    """The agent's tree at nic0, by tc."""
    shell("""
        tc qdisc add dev nic0 root handle 4e51: htb default 10
        tc class add dev nic0 parent 4e51: classid 4e51:10 htb rate 1gbit
        tc class add dev nic0 parent 4e51: classid 4e51:20 htb rate 1gbit
        tc class add dev nic0 parent 4e51: classid 4e51:30 htb rate 1gbit
    """)


@contextmanager
def cgroups(names: Sequence[str]) -> Iterator[tuple[Path, ...]]:
    """New cgroup v2 directories below one of the test's own, gone on leaving. Skips without a hierarchy."""
    root = find_hierarchies().unified
    if not root or not os.access(root, os.W_OK):
        pytest.skip("no writable cgroup v2 hierarchy")
    top = Path(root) / f"na-test-{os.getpid()}-bpf"
    made = [top, *(top / name for name in names)]
    try:
        for path in made:
            path.mkdir()
        yield tuple(made)
    finally:
        for path in reversed(made):
            path.rmdir()


def level(path: Path) -> int:
    """Of a cgroup directory; the root of its hierarchy has 0."""
    return len(path.relative_to(str(find_hierarchies().unified)).parts)


def descriptors() -> int:
    """How many this process has open."""
    return psutil.Process().num_fds()
