"""Machines joined by wires, made of network namespaces, and removed again whatever happens.

    host                           wire                        peer
      nic0 ------------------- h0 [bridge] p0 --------------- eth0       addresses of services on lo
      nic1 (two NICs) -------- h1 [bridge] p1 --------------- eth1
      pods: a namespace each, joined by a veth (routed), in the bridge of nic0 (bridged), or in a bridge of
      their own (behind)

Each wire is a token bucket in both directions, with 1.5 MB before it; with rate 0 it is as fast as the
machine. IPv4 and IPv6 everywhere.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple

GIGABIT = 1_000_000_000
BUFFER_BYTES = 1_500_000  # of a switch port
_TOKENS_BYTES = 131_072  # two of the largest packets (GSO)
_NUMBERS = itertools.count()
_SYSCTLS = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/dad_transmits": 0,
}


class Way(enum.StrEnum):
    """How a pod's packets come to the NIC."""

    ROUTED = "routed"
    BRIDGED = "bridged"  # the NIC is a port of the pods' bridge
    BEHIND = "behind"  # the pods' bridge is routed (the bridge plug-in of CNI: cni0)


class Address(NamedTuple):
    """The same machine in both families."""

    v4: str
    v6: str

    def of(self, family: int) -> str:
        """The address for 4 or 6."""
        return self.v4 if family == 4 else self.v6


class Pod(NamedTuple):
    """A namespace with an address of its own; `veth` is its end in the host."""

    namespace: str
    address: Address
    veth: str


def _run(words: Iterable[str], text: str = "") -> str:
    done = subprocess.run(list(words), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{text}"
    return done.stdout


def inside(namespace: str) -> list[str]:
    """Words that execute a command in a network namespace; /sys stays as it is, unlike `ip netns exec`."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


class Lab:
    """Two machines and what is between them; `lab()` makes it."""

    def __init__(self, wire_bps: int, nics: int, bridged: bool) -> None:
        self._mark = f"na-{os.getpid()}-{next(_NUMBERS)}"
        self._pods = itertools.count(1)
        self.wire_bps, self.nics, self.bridged = wire_bps, nics, bridged
        self.host, self.wire, self.peer = (f"{self._mark}-{name}" for name in ("host", "wire", "peer"))

    def ip(self, namespace: str, *lines: str) -> None:
        """Lines for `ip` in a namespace; AssertionError with what it said."""
        _run(["ip", "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")

    def tc(self, namespace: str, line: str) -> str:
        """What `tc` answers in a namespace."""
        return _run(["tc", "-n", namespace, *line.split()])

    def service(self, nic: int = 0) -> Address:
        """The peer's address that the host reaches by this NIC; by nic0 when that NIC is down."""
        return Address(f"10.70.0.{nic + 1}", f"fd70::{nic + 1}")

    def host_address(self, nic: int = 0) -> Address:
        """The host's own on this NIC."""
        return Address(f"10.{71 + nic}.0.1", f"fd{71 + nic}::1")

    def pod(self, way: Way = Way.ROUTED, nic: int = 0) -> Pod:
        """A new pod; the peer reaches it by this NIC. It is removed with the lab, or by `remove`."""
        number = next(self._pods)
        pod = Pod(f"{self._mark}-pod{number}", _pod_address(way, nic, number), f"pod{number}")
        self.add(pod.namespace)
        self.ip(
            self.host,
            f"link add {pod.veth} type veth peer name eth0 netns {pod.namespace}",
            f"link set {pod.veth} up",
        )
        if way is Way.ROUTED:
            gateway = Address("169.254.1.1", "fe80::1")
            hosted = [
                f"address add {gateway.v4}/32 dev {pod.veth}",
                f"address add {gateway.v6}/64 dev {pod.veth} nodad",
                f"route add {pod.address.v4}/32 dev {pod.veth}",
                f"route add {pod.address.v6}/128 dev {pod.veth}",
            ]
            length = (32, 128)
        else:
            assert self.bridged or way is Way.BEHIND, "a lab for bridged pods is made with bridged=True"
            bridge, gateway = (
                ("br0", Address("10.71.0.2", "fd71::2"))
                if way is Way.BRIDGED
                else ("cni0", Address("10.79.0.1", "fd79::1"))
            )
            hosted = [f"link set {pod.veth} master {bridge}"]
            length = (16, 64)
        self.ip(self.host, *hosted)
        self.ip(
            pod.namespace,
            f"address add {pod.address.v4}/{length[0]} dev eth0",
            f"address add {pod.address.v6}/{length[1]} dev eth0 nodad",
            "link set eth0 up",
            f"route add 0.0.0.0/0 via {gateway.v4} dev eth0 onlink",
            f"route add ::/0 via {gateway.v6} dev eth0 onlink",
        )
        return pod

    def remove(self, pod: Pod) -> None:
        """Take the pod's network away; AssertionError when it is not there."""
        self.ip(self.host, f"link delete {pod.veth}")
        _run(["ip", "netns", "delete", pod.namespace])

    def add(self, namespace: str) -> None:
        """A new namespace, whose name must begin with that of the lab to be removed with it."""
        _run(["ip", "netns", "add", namespace])
        writes = "; ".join(f"echo {value} > /proc/sys/net/{name}" for name, value in _SYSCTLS.items())
        _run([*inside(namespace), "sh", "-ec", writes])
        self.ip(namespace, "link set lo up")

    def build(self) -> None:
        """Everything but pods."""
        for namespace in (self.host, self.wire, self.peer):
            self.add(namespace)
        self.ip(
            self.peer, *(f"address add {one} dev lo" for nic in range(self.nics) for one in self.service(nic))
        )
        for nic in range(self.nics):
            self._join(nic)
        if self.bridged:
            self.ip(
                self.host,
                "link add br0 type bridge mcast_snooping 0",
                "link set br0 up",
                "link set nic0 master br0",
            )
        self.ip(self.host, "link add cni0 type bridge mcast_snooping 0", "link set cni0 up",
                "address add 10.79.0.1/16 dev cni0", "address add fd79::1/64 dev cni0 nodad")  # fmt: skip
        for nic in range(self.nics):
            self._address(nic)
            self._address_peer(nic)

    def demolish(self) -> None:
        """Remove what there is."""
        listed = _run(["ip", "netns", "list"]).split("\n")
        for name in (line.split()[0] for line in listed if line.startswith(f"{self._mark}-")):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def rename(self, nic: int, name: str) -> None:
        """Give the host's NIC another name, as udev does: down for a moment, so its routes are made anew."""
        self.ip(self.host, f"link set nic{nic} down", f"link set nic{nic} name {name}", f"link set {name} up")
        self._address(nic, name)

    def replace(self, nic: int) -> None:
        """Take the host's NIC away and put another one in its place, of the same name."""
        self.ip(self.wire, f"link delete h{nic}")
        self._plug(nic)
        self._address(nic)

    def unplug(self, nic: int) -> None:
        """Both machines lose this link; what goes by it has its detour by nic0."""
        self.ip(self.host, f"link set nic{nic} down")
        self.ip(self.peer, f"link set eth{nic} down")

    def plug_in(self, nic: int) -> None:
        """And have it again, with its routes."""
        self.ip(self.host, f"link set nic{nic} up")
        self.ip(self.peer, f"link set eth{nic} up")
        self._address(nic)
        self._address_peer(nic)

    def _join(self, nic: int) -> None:
        self.ip(
            self.wire,
            f"link add p{nic} type veth peer name eth{nic} netns {self.peer}",
            f"link add switch{nic} type bridge mcast_snooping 0",
            f"link set p{nic} master switch{nic} up",
            f"link set switch{nic} up",
        )
        self._bound(f"p{nic}")
        self.ip(self.peer, f"link set eth{nic} up")
        self._plug(nic)

    def _plug(self, nic: int) -> None:
        self.ip(
            self.wire,
            f"link add h{nic} type veth peer name nic{nic} netns {self.host}",
            f"link set h{nic} master switch{nic} up",
        )
        self._bound(f"h{nic}")
        self.ip(self.host, f"link set nic{nic} up")

    def _bound(self, port: str) -> None:
        if self.wire_bps:
            bucket = f"tbf rate {self.wire_bps}bit burst {_TOKENS_BYTES} limit {BUFFER_BYTES}"
            self.tc(self.wire, f"qdisc add dev {port} root {bucket}")

    def _address(self, nic: int, name: str = "") -> None:
        """The host's subnet on each wire, and the peer's services beyond it; all by nic0 as a detour."""
        device = name or ("br0" if self.bridged and nic == 0 else f"nic{nic}")
        for family, length, everywhere in ((4, 16, "0.0.0.0/0"), (6, 64, "::/0")):
            own, other = self.host_address(nic).of(family), _peer_address(nic).of(family)
            lines = [
                f"address replace {own}/{length} dev {device} {'nodad' if family == 6 else ''}",
                f"route replace {self.service(nic).of(family)} via {other} dev {device} metric 10",
            ]
            detour = [f"route replace {everywhere} via {other} dev {device}"] if nic == 0 else []
            self.ip(self.host, *lines, *detour)

    def _address_peer(self, nic: int) -> None:
        """The peer's subnet on each wire, and the host's pods beyond it."""
        for family, length in ((4, 16), (6, 64)):
            own, other = _peer_address(nic).of(family), self.host_address(nic).of(family)
            pods = f"10.{80 + nic}.0.0/16" if family == 4 else f"fd{80 + nic}::/64"
            behind = "10.79.0.0/16" if family == 4 else "fd79::/64"
            detour = (
                f"route replace {behind} via {other} dev eth0"
                if nic == 0
                else f"route replace {pods} via {self.host_address().of(family)} metric 2000"
            )
            self.ip(
                self.peer,
                f"address replace {own}/{length} dev eth{nic} {'nodad' if family == 6 else ''}",
                f"route replace {pods} via {other} dev eth{nic} metric 10",
                detour,
            )


def _peer_address(nic: int) -> Address:
    return Address(f"10.{71 + nic}.0.2", f"fd{71 + nic}::2")


def _pod_address(way: Way, nic: int, number: int) -> Address:
    high, low = divmod(number, 250)
    net, base = {Way.ROUTED: (80 + nic, 0), Way.BRIDGED: (71, 100), Way.BEHIND: (79, 100)}[way]
    return Address(f"10.{net}.{base + high}.{low + 1}", f"fd{net}::{base + high:x}:{low + 1:x}")


@contextlib.contextmanager
def lab(wire_bps: int = GIGABIT, *, nics: int = 1, bridged: bool = False) -> Iterator[Lab]:
    """A host with `nics` NICs, nic0 of them in a bridge for `bridged` pods, and a peer."""
    made = Lab(wire_bps, nics, bridged)
    try:
        made.build()
        yield made
    finally:
        made.demolish()


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_CLASS = re.compile(
    r"class htb (\S+) .*ceil (\d+)([KMG]?)bit .*\n Sent (\d+) bytes (\d+) pkt \(dropped (\d+)"
)


class Counts(NamedTuple):
    """What a class has sent, and what it may."""

    bytes: int
    packets: int
    drops: int
    ceil_bps: int


def classes(made: Lab, nic: str = "nic0") -> dict[str, Counts]:
    """Counters of the HTB classes of a NIC of the host by class id in hexadecimal ("4e51:30")."""
    found = _CLASS.findall(made.tc(made.host, f"-s class show dev {nic}"))
    return {
        name: Counts(int(sent), int(packets), int(drops), int(ceil) * _UNITS[unit])
        for name, ceil, unit, sent, packets, drops in found
    }
