"""A host, a peer on its wire, a routed and a bridged pod: network namespaces that a test makes and removes.

pod --veth-- host --nic0 (HTB)-- peer        bridged --veth-- br0 (host) --nic1 (HTB)-- peer
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyroute2.netlink import NLM_F_DUMP
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETTABLE,
)

from nodeagent.kernel.nic.nft_wire import Message, Wire
from nodeagent.model.nic import MAJOR, MINORS
from nodeagent.model.pod import Qos
from tests.live.running import until

PEER = {4: "10.77.0.2", 6: "fd77::2"}
POD = {4: "10.77.1.2", 6: "fd77:1::2"}
BRIDGED = {4: "10.78.0.3", 6: "fd78::3"}
BRIDGED_PEER = {4: "10.78.0.2", 6: "fd78::2"}
PACKETS = 20
_CLONE_NEWNET = 0x40000000
_SEND = """
import socket, sys, time
family, address, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sender = socket.socket(family, socket.SOCK_DGRAM)
for number in range(count):
    sender.sendto(b"x" * 100, (address, 9))
    time.sleep(0.0002)
"""


def call(*words: str) -> str:
    """A command's answer; CalledProcessError with its words when it fails."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Place:
    """The namespaces, by name."""

    def __init__(self) -> None:
        self.host, self.peer, self.pod, self.bridged = (
            f"na-{name}-{os.getpid()}" for name in ("host", "peer", "pod", "brpod")
        )

    @property
    def spaces(self) -> tuple[str, ...]:
        """All of them."""
        return self.host, self.peer, self.pod, self.bridged

    def make(self) -> None:
        """Namespaces, wires, addresses, and a tree on both NICs of the host."""
        for space in self.spaces:
            call("ip", "netns", "add", space)
            self.within(space, "ip", "link", "set", "lo", "up")
        self._wire(self.host, "nic0", "10.77.0.1/24", "fd77::1/64", self.peer, "10.77.0.2/24", "fd77::2/64")
        self._wire(
            self.host, "pod0", "10.77.1.1/24", "fd77:1::1/64", self.pod, "10.77.1.2/24", "fd77:1::2/64"
        )
        self.within(self.host, "ip", "link", "add", "br0", "type", "bridge")
        self.within(self.host, "ip", "link", "set", "br0", "up")
        self._wire(self.host, "nic1", "", "", self.peer, "10.78.0.2/24", "fd78::2/64")
        self._wire(self.host, "pod1", "", "", self.bridged, "10.78.0.3/24", "fd78::3/64")
        for port in ("nic1", "pod1"):
            self.within(self.host, "ip", "link", "set", port, "master", "br0")
        self.within(self.pod, "ip", "route", "add", "default", "via", "10.77.1.1")
        self.within(self.pod, "ip", "-6", "route", "add", "default", "via", "fd77:1::1")
        self.sysctl("ipv4/ip_forward", 1)
        self.sysctl("ipv6/conf/all/forwarding", 1)
        for nic in ("nic0", "nic1"):
            self._tree(nic)

    def remove(self) -> None:
        """All of it, whatever of it there is."""
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)

    def within(self, space: str, *words: str) -> str:
        """A command's answer in a namespace; /sys stays what it is."""
        return call("nsenter", f"--net=/run/netns/{space}", *words)

    def sysctl(self, path: str, value: int) -> None:
        """Set it in the host's namespace."""
        self.within(self.host, "sh", "-c", f"echo {value} >/proc/sys/net/{path}")

    def packets(self, qos: Qos, nic: str = "nic0") -> int:
        """What a class has sent so far."""
        text = self.within(self.host, "tc", "-s", "class", "show", "dev", nic)
        found = re.search(
            rf"class htb {MAJOR:x}:{MINORS[qos]:x} .*?Sent \d+ bytes (\d+) pkt", text, re.DOTALL
        )
        assert found, text
        return int(found[1])

    def sent(self, space: str, version: int, to: str, *, nic: str = "nic0", cgroup: str = "") -> Qos:
        """The class in which PACKETS datagrams to an address are counted; sent from within a cgroup."""
        before = {qos: self.packets(qos, nic) for qos in Qos}
        with self.sending(space, version, to, PACKETS, cgroup) as sender:
            assert sender.wait() == 0
        found: list[Qos] = []

        def counted() -> bool:
            found[:] = [qos for qos in Qos if self.packets(qos, nic) - before[qos] >= PACKETS]
            return bool(found)

        until(counted, "the packets in some class")
        (qos,) = found
        return qos

    @contextlib.contextmanager
    def sending(
        self, space: str, version: int, to: str, count: int, cgroup: str = ""
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Send datagrams, in the cgroup from the beginning."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        join = f"echo $$ >{cgroup}/cgroup.procs && " if cgroup else ""
        words = (sys.executable, "-c", _SEND, str(int(family)), to, str(count))
        script = f'{join}exec nsenter --net=/run/netns/{space} "$@"'
        with subprocess.Popen(["sh", "-c", script, "sh", *words]) as sender:
            try:
                yield sender
            finally:
                sender.kill()

    def _wire(self, near: str, nic: str, near4: str, near6: str, far: str, far4: str, far6: str) -> None:
        peer = f"p-{nic}"
        self.within(near, "ip", "link", "add", nic, "type", "veth", "peer", "name", peer, "netns", far)
        for space, name, four, six in ((near, nic, near4, near6), (far, peer, far4, far6)):
            if four:
                self.within(space, "ip", "address", "add", four, "dev", name)
                self.within(space, "ip", "address", "add", six, "dev", name, "nodad")
            self.within(space, "ip", "link", "set", name, "up")

    def _tree(self, nic: str) -> None:
        root, top = f"{MAJOR:x}:", f"{MAJOR:x}:1"
        default = f"{MINORS[Qos.LS]:x}"
        self.within(self.host, *f"tc qdisc add dev {nic} root handle {root} htb default {default}".split())
        rate = "htb rate 1gbit burst 64k cburst 64k"
        self.within(self.host, *f"tc class add dev {nic} parent {root} classid {top} {rate}".split())
        for minor in MINORS.values():
            words = f"tc class add dev {nic} parent {top} classid {root}{minor:x} {rate}"
            self.within(self.host, *words.split())


@contextlib.contextmanager
def inside(space: str) -> Iterator[None]:
    """This thread in a network namespace: what is opened stays there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{space}", "rb") as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def cgroup(root: str, *path: str) -> Iterator[Path]:
    """A cgroup of this test, and those below it in its `path`; removed when they are empty."""
    made = [Path(root, f"na-test-{os.getpid()}-{time.monotonic_ns()}")]
    made += [made[0].joinpath(*path[: depth + 1]) for depth in range(len(path))]
    for directory in made:
        directory.mkdir()
    try:
        yield made[0]
    finally:
        for directory in reversed(made):
            until(lambda directory=directory: _removed(directory), f"{directory} is empty")  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def everything(wire: Wire) -> str:
    """All tables, chains, rules and maps as the kernel tells them."""
    told = []
    for kind in (NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET):
        answers = wire.ask(Message("all", kind, 0, {}, NLM_F_DUMP))
        told.append([answer.hex() for answer in answers])
    return json.dumps(told)
