"""Links on interfaces of all kinds, in a network namespace of this test's own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random

import pytest

from nodeagent.kernel.nic.link_watch import LinkWatch
from nodeagent.kernel.nic.links import Links, Peer
from nodeagent.model.nic import Link, Qdisc
from tests.live.own_netns import ip, own_netns
from tests.live.running import until

pytestmark = pytest.mark.live


class Reading:
    """Links, read a second after the last time; without what each namespace has (tunl0, if ipip is there)."""

    def __init__(self) -> None:
        self.links = Links()
        self.at = 100.0
        self.always = {link.name for link in self.links.read(self.at - 1.0)}

    def named(self, without: Collection[str] = ()) -> dict[str, Link]:
        self.at += 1.0
        links = self.links.read(self.at, without)
        return {link.name: link for link in links if link.name not in self.always}


@pytest.fixture
def reading() -> Iterator[Reading]:
    with own_netns(loopback=False):
        made = Reading()
        try:
            yield made
        finally:
            made.links.close()


def tc(words: str) -> None:
    subprocess.run(["tc", *words.split()], check=True)


def works(command: str) -> bool:
    return subprocess.run(command.split(), check=False, capture_output=True).returncode == 0


def test_what_a_link_is_and_what_it_belongs_to(reading: Reading) -> None:
    ip(
        "link add nic0 numtxqueues 3 type veth peer name nic1",
        "link add br0 type bridge",
        "link set nic1 master br0",
        "link add mac0 link nic0 type macvlan",
        "link set nic0 mtu 1400 up",
        "link set nic1 up",
    )
    found = reading.named()
    assert found.keys() == {"br0", "mac0", "nic0", "nic1"}
    nic0 = found["nic0"]
    assert (nic0.kind, nic0.mtu_bytes, nic0.tx_queues, nic0.up) == ("veth", 1400, 3, True)
    assert nic0.index == socket.if_nametoindex("nic0")
    assert (nic0.lower, nic0.master, found["nic1"].master) == ((), "", "br0")
    assert (found["mac0"].kind, found["mac0"].lower, found["mac0"].up) == ("macvlan", ("nic0",), False)
    assert (found["br0"].kind, found["br0"].lower) == ("bridge", ())


def test_a_veth_tells_no_speed_nor_does_what_is_made_of_it(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1", "link add mac0 link nic0 type macvlan")
    ip("link add br0 type bridge", "link set nic1 master br0 up", "link set nic0 up")
    assert {link.link_bps for link in reading.named().values()} == {None}


def test_no_carrier_is_down(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1", "link set nic0 up")
    assert not reading.named()["nic0"].up
    ip("link set nic1 up")
    assert reading.named()["nic0"].up


def test_the_root_qdisc_its_leaves_and_clsact(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1", "link set nic0 up", "link set nic1 up")
    nic0 = reading.named()["nic0"]
    assert (nic0.root, nic0.leaves, nic0.clsact) == (Qdisc("noqueue", 0), (), False)
    tc("qdisc add dev nic0 root handle 7: htb default 1")
    tc("class add dev nic0 parent 7: classid 7:1 htb rate 1mbit")
    tc("qdisc add dev nic0 parent 7:1 pfifo limit 10")
    nic0 = reading.named()["nic0"]
    assert (nic0.root, nic0.leaves, nic0.clsact) == (Qdisc("htb", 7 << 16), ("pfifo",), False)
    tc("qdisc add dev nic0 clsact")
    tc("qdisc add dev nic1 ingress")
    found = reading.named()
    assert (found["nic0"].clsact, found["nic1"].clsact) == (True, False)
    assert (found["nic0"].leaves, found["nic1"].leaves) == (("pfifo",), ())
    tc("qdisc del dev nic0 root")
    tc("qdisc del dev nic0 clsact")
    assert reading.named()["nic0"] == nic0.__class__(
        name="nic0",
        index=nic0.index,
        up=True,
        root=Qdisc("noqueue", 0),
        kind="veth",
        tx_queues=nic0.tx_queues,
    )


def test_a_multi_queue_root_has_the_kind_of_each_queue(reading: Reading) -> None:
    ip("link add nic0 numtxqueues 4 type veth peer name nic1", "link set nic0 up")
    if not works("tc qdisc add dev nic0 root handle 8: mq"):
        pytest.skip("no mq in this kernel")
    nic0 = reading.named()["nic0"]
    assert nic0.root == Qdisc("mq", 8 << 16)
    assert len(nic0.leaves) == 4


def test_default_routes_of_both_families_and_all_next_hops(reading: Reading) -> None:
    for name, net in (("nic0", 0), ("nic1", 1), ("nic2", 2), ("nic3", 3)):
        ip(f"link add {name} type veth peer name p{net}", f"link set {name} up", f"link set p{net} up")
        ip(f"addr add 10.{net}.0.1/24 dev {name}", f"addr add fd00:{net}::1/64 dev {name} nodad")
    assert not any(link.default_route for link in reading.named().values())
    ip("route add default nexthop via 10.0.0.2 nexthop via 10.1.0.2", "route add default via fd00:2::2")
    ip("route add 10.77.0.0/16 via 10.3.0.2", "route add default via 10.3.0.2 table 77")
    ip("route add unreachable default metric 4000")
    assert {name for name, link in reading.named().items() if link.default_route} == {"nic0", "nic1", "nic2"}
    ip("route del default via fd00:2::2", "route replace default via 10.1.0.2")
    assert {name for name, link in reading.named().items() if link.default_route} == {"nic1"}


def test_default_routes_are_found_among_thousands_of_others(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1", "link set nic0 up", "addr add 10.0.0.1/24 dev nic0")
    ip(*(f"route add 10.{i // 250 + 1}.{i % 250}.0/24 dev nic0" for i in range(3000)))
    ip("route add default via 10.0.0.2")
    assert reading.named()["nic0"].default_route


def test_renamed_made_anew_under_another_index_and_gone_are_seen_at_the_next_reading(
    reading: Reading,
) -> None:
    ip("link add nic0 type veth peer name nic1")
    first = reading.named()["nic0"].index
    ip("link set nic0 name wan0")
    assert reading.named()["wan0"].index == first
    ip("link del wan0")
    assert reading.named() == {}
    ip("link add wan0 type veth peer name nic1")
    assert reading.named()["wan0"].index > first


def test_nothing_is_read_anew_while_nothing_changes_nor_when_a_class_does(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1")  # down: of carrier it is told at any later time
    tc("qdisc add dev nic0 root handle 7: htb default 1")
    before = reading.links.read(200.0)
    tc("class add dev nic0 parent 7: classid 7:1 htb rate 1mbit")
    tc("class change dev nic0 parent 7: classid 7:1 htb rate 2mbit")
    assert reading.links.read(201.0) is before
    assert reading.links.peers(202.0) is reading.links.peers(203.0)
    again = reading.links.read(240.0)
    assert again is not before
    assert again == before


def test_our_own_ifbs_and_what_is_left_out_are_not_told(reading: Reading) -> None:
    ip("link add nic0 type veth peer name pod0")
    if not works("ip link add na-ifb0 type ifb"):
        pytest.skip("no ifb in this kernel")
    assert reading.named(without={"pod0"}).keys() == {"nic0"}


def test_addresses_of_our_own_are_those_that_others_can_send_to(reading: Reading) -> None:
    ip("link add nic0 type veth peer name nic1", "link set nic0 up", "link set nic1 up")
    ip("addr add 10.5.0.1/24 dev nic0", "addr add 10.6.0.1 peer 10.6.0.2 dev nic1")
    ip("addr add fd00:5::1/64 dev nic0 nodad", "addr add 10.4.0.1/32 dev nic0 scope link")
    assert reading.links.own_addresses(100.0) == ("10.4.0.1", "10.5.0.1", "10.6.0.1", "fd00:5::1")
    ip("addr del 10.4.0.1/32 dev nic0")
    assert reading.links.own_addresses(101.0) == ("10.5.0.1", "10.6.0.1", "fd00:5::1")
    ip("addr del 10.5.0.1/24 dev nic0")
    assert reading.links.own_addresses(102.0) == ("10.6.0.1", "fd00:5::1")


def test_veths_into_other_namespaces_are_told_by_the_namespaces_number(reading: Reading) -> None:
    other = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo in; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        ip("link add br0 type bridge", "link add here type veth peer name here2")
        ip(f"link add pod0 type veth peer name eth0 netns {other.pid}", "link set pod0 master br0")
        ip(f"link add pod1 type veth peer name eth1 netns {other.pid}")
        (found,) = reading.links.peers(100.0).values()
        assert found == (Peer("pod0", "br0"), Peer("pod1", ""))
    # A namespace ends some time after its last process.
    until(lambda: reading.named().keys() == {"br0", "here", "here2"}, "the veths go with the namespace")
    assert reading.links.peers(reading.at) == {}


def test_what_is_told_of_one_by_one_is_what_all_together_are(reading: Reading) -> None:
    random = Random(7)
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo in; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        ip("link add br0 type bridge")
        reading.named()
        changes = (
            lambda n: [f"link add v{n} type veth peer name w{n}"],
            lambda n: [f"link set w{n} netns {other.pid}", f"link set v{n} master br0"],
            lambda n: [f"link set v{n} nomaster", f"link set v{n} up"],
            lambda n: [f"address add 10.0.{n}.1/24 dev v{n}", f"link set v{n} mtu {1300 + n}"],
            lambda n: [f"link set v{n} down", f"link set v{n} name x{n}"],
            lambda n: [f"link del x{n}"],
        )
        steps = {n: iter(changes) for n in range(12)}
        for number in random.sample([*steps] * len(changes), len(steps) * len(changes)):
            ip(*next(steps[number])(number))
            told = reading.named(), reading.links.peers(reading.at), reading.links.own_addresses(reading.at)
            with contextlib.closing(Links()) as fresh:
                at = reading.at
                links = {link.name: link for link in fresh.read(at) if link.name not in reading.always}
                assert told == (links, fresh.peers(at), fresh.own_addresses(at)), number


def test_a_watch_that_overran_says_that_something_changed() -> None:
    with own_netns():
        watch = LinkWatch()
        with socket.socket(fileno=os.dup(watch.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        watch.take()
        assert not watch.drain()
        ip(*(f"link add v{i} type veth peer name w{i}" for i in range(20)))
        assert watch.drain().everything
        watch.take()
        assert not watch.drain()
        watch.close()


@pytest.mark.parametrize("kind", ["vlan", "bond"])
def test_a_vlan_and_a_bond_are_made_of_other_links(reading: Reading, kind: str) -> None:
    ip("link add nic0 type veth peer name nic1")
    command = "ip link add top0 " + ("link nic0 type vlan id 7" if kind == "vlan" else "type bond mode 1")
    if not works(command):
        pytest.skip(f"no {kind} in this kernel")
    if kind == "bond":
        ip("link set nic0 master top0", "link set nic1 master top0")
    found = reading.named()
    assert (found["top0"].kind, found["top0"].link_bps) == (kind, None)
    assert found["top0"].lower == (("nic0",) if kind == "vlan" else ("nic0", "nic1"))
    assert found["nic0"].master == ("" if kind == "vlan" else "top0")


def test_the_device_of_each_nic_is_the_one_that_sysfs_tells() -> None:
    """Of the machine's own NICs, which are only looked at; /sys/class/net is theirs."""
    links = Links()
    checked = 0
    for link in links.read(0.0):
        device = Path("/sys/class/net", link.name, "device")
        if not device.exists():
            continue
        path = device.resolve()
        while not (path / "numa_node").exists() and len(path.parts) > 3:
            path = path.parent
        node = int((path / "numa_node").read_text()) if (path / "numa_node").exists() else -1
        assert link.numa_node == (None if node < 0 else node)
        assert link.virtual_function == (device / "physfn").exists()
        try:
            speed = int((device.parent / "speed").read_text())
        except OSError:
            speed = -1
        assert link.link_bps == (None if speed <= 0 else speed * 1e6)
        checked += 1
    links.close()
    if not checked:
        pytest.skip("no NIC with a device here")


def test_links_that_go_while_all_are_asked_for_hide_no_other(reading: Reading) -> None:
    """The kernel counts its way through links and qdiscs: those that went shift the ones behind them."""
    ip(*(f"link add v{i} type veth peer name w{i}" for i in range(200)))
    ip("link add nic0 type veth peer name nic1", "link set nic0 up", "addr add 10.0.0.1/24 dev nic0")
    ip("route add default via 10.0.0.2")
    tc("qdisc add dev nic0 root handle 7: htb default 1")
    removing = subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE)
    with removing:
        assert removing.stdin is not None
        removing.stdin.write("".join(f"link del v{i}\n" for i in range(200)).encode())
        removing.stdin.close()
        counts = set()
        while removing.poll() is None:
            reading.at += 20.0
            found = reading.named()
            counts.add(len(found))
            assert (found["nic0"].root, found["nic0"].default_route) == (Qdisc("htb", 7 << 16), True)
    assert len(counts) > 3
