"""A wire to try things on: a veth pair in a network namespace that ends with its process.

    nic0 (192.0.2.1, .2; 2001:db8::1, ::2)  ---  wire0        far away: 192.0.2.9, 2001:db8::9

What leaves by nic0 is counted by the HTB tree under trial and ends at wire0, which has no address. The
addresses are those that RFC 5737 and RFC 3849 keep for documentation.
Invariant: a class is told from others by a packet that it counted.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nodeagent.kernel.nic.tc import Trees
from nodeagent.model.errors import Refused, Unsupported
from nodeagent.model.nic import ClassSeen, HtbClass, Tree, classid
from nodeagent.model.pod import Qos

NIC, WIRE = "nic0", "wire0"
OWN, POD = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
FAR = ("192.0.2.9", "2001:db8::9")
_PATIENCE_S = 0.3  # softirqs may be put off when the machine is busy
_DISCARD = 9  # the port
_NODAD = 0x02
# ENOENT for what is outside of our namespace on a mount with nsdelegate (cgroup_procs_write_permission)
_DELEGATED = "run the agent in the host's cgroup namespace"
_BPS = 1e9


def tree(batch_bps: float = _BPS) -> Tree:
    """Three classes on a wire of 1 Gbit/s."""
    ceilings = {Qos.LS: _BPS, Qos.MID: _BPS, Qos.BATCH: batch_bps}
    classes = [
        HtbClass(qos, min(ceiling, _BPS / 4), ceiling, number, 1 << 16, 1 << 16, 1 << 14)
        for number, (qos, ceiling) in enumerate(ceilings.items())
    ]
    return Tree(_BPS, 1 << 16, tuple(classes))


class Bench:
    """The namespace of the calling thread, which shall be a new one, with the wire in it."""

    def __init__(self, ip: IPRoute) -> None:
        self._ip = ip
        self.nic, self.wire = self.pair(NIC, WIRE)
        self.trees = Trees()
        self.has_ipv6 = self._address()
        self.far_mac = self._mac(self.wire)
        for far in self._families(FAR):
            ip.neigh("add", dst=far, lladdr=_text(self.far_mac), ifindex=self.nic, state="permanent")

    def pair(self, name: str, other: str) -> tuple[int, int]:
        """A veth pair, up; the indices of both."""
        self._ip.link("add", ifname=name, kind="veth", peer=other)
        ends = socket.if_nametoindex(name), socket.if_nametoindex(other)
        for index in ends:
            self._ip.link("set", index=index, state="up")
        end = time.monotonic() + _PATIENCE_S
        while not all(self._passes(index) for index in ends):
            if time.monotonic() > end:
                raise Unsupported(f"{name} does not come up")
            time.sleep(0.002)
        return ends

    def bridge(self, *ports: int) -> None:
        """A bridge, up, of these."""
        self._ip.link("add", ifname="bridge0", kind="bridge")
        index = socket.if_nametoindex("bridge0")
        for port in ports:
            self._ip.link("set", index=port, master=index)
        self._ip.link("set", index=index, state="up")

    def send(self, sources: tuple[str, ...], size: int = 64, count: int = 1, priority: int = 0) -> int:
        """UDP packets to far away from each address that there is; how many."""
        usable = self._families(sources)
        for source in usable:
            family, far = (socket.AF_INET6, FAR[1]) if ":" in source else (socket.AF_INET, FAR[0])
            with socket.socket(family, socket.SOCK_DGRAM) as out:
                if priority:
                    out.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
                out.bind((source, 0))
                for _ in range(count):
                    out.sendto(bytes(size), (far, _DISCARD))
        return count * len(usable)

    def inject(self, name: str, source: str, destination: str) -> int:
        """An IPv4 packet that comes out of an interface as if the other end of its pair had sent it."""
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, _packed(source), _packed(destination)
        )
        checksum = sum(struct.unpack("!10H", header))
        checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
        header = header[:10] + struct.pack("!H", checksum) + header[12:]
        frame = self.far_mac + b"\x02na-pb" + b"\x08\x00" + header + struct.pack("!HHHH", 7, _DISCARD, 8, 0)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((name, 0))
            out.send(frame)
        return 1

    def counted(
        self, qos: Qos, send: Callable[[], int], read: Callable[[], tuple[ClassSeen, ...] | None], what: str
    ) -> None:
        """Unsupported unless the class counts what `send` says that it has sent."""
        before = _packets(read(), qos)
        wanted = before + send()
        end = time.monotonic() + _PATIENCE_S
        while _packets(read(), qos) < wanted:
            if time.monotonic() > end:
                raise Unsupported(f"{what}: was accepted, but a packet was not counted in its class")
            time.sleep(0.002)

    def on_nic(self) -> tuple[ClassSeen, ...] | None:
        """The classes of the tree on nic0."""
        return self.trees.read(self.nic)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Callable[[], int]]:
        """How many packets came to wire0 since."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as all_packets:
            all_packets.bind((WIRE, 0x0800))
            all_packets.setblocking(False)
            yield lambda: _received(all_packets)

    def _families(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(each for each in addresses if self.has_ipv6 or ":" not in each)

    def _address(self) -> bool:
        """False where there is no IPv6."""
        for address in (OWN[0], POD[0]):
            self._ip.addr("add", index=self.nic, address=address, prefixlen=24)
        try:
            for address in (OWN[1], POD[1]):
                self._ip.addr("add", index=self.nic, address=address, prefixlen=64, flags=_NODAD)
        except (NetlinkError, OSError):
            return False
        return True

    def _passes(self, index: int) -> bool:
        """An end whose other end came up later sends nothing before linkwatch has run (linkwatch_do_dev)."""
        (link,) = self._ip.get_links(index)
        return bool(link.get("IFLA_OPERSTATE") == "UP")

    def _mac(self, index: int) -> bytes:
        (link,) = self._ip.get_links(index)
        return bytes.fromhex(str(link.get("IFLA_ADDRESS")).replace(":", ""))


def in_cgroup(procs: str, send: Callable[[], int]) -> Callable[[], int]:
    """`send`, by a process of its own that is put into a cgroup first; Refused when it cannot."""

    def sent() -> int:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with open(procs, "w") as file:
                    file.write("0")
                os.write(writer, str(send()).encode())
                status = 0
            except OSError as error:
                os.write(writer, str(error.strerror).encode())
            finally:
                os._exit(status)
        os.close(writer)
        with open(reader) as answer:
            text = answer.read()
        if os.waitpid(child, 0)[1] != 0:
            raise Refused(f"{procs}: {text}", hint=_DELEGATED)
        return int(text)

    return sent


def as_batch(send: Callable[..., int]) -> Callable[[], int]:
    """`send` with the priority of Batch's class, as a classifier would set it."""
    return lambda: send(OWN, priority=classid(Qos.BATCH))


def _packets(classes: tuple[ClassSeen, ...] | None, qos: Qos) -> int:
    return sum(each.packets for each in classes or () if each.qos is qos)


def _received(all_packets: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while all_packets.recv(1 << 16):
            count += 1
    return count


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, address)


def _text(mac: bytes) -> str:
    return mac.hex(":")
