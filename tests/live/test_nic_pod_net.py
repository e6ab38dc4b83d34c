"""PodNets on pods made of real cgroups, processes, network namespaces and veths."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from nodeagent.kernel.nic.links import Links
from nodeagent.kernel.nic.netns import MOST_ADDRESSES
from nodeagent.kernel.nic.pod_net import NO_PROCESS, PodNets
from nodeagent.model.nic import PodNet
from nodeagent.model.pod import Member
from tests.live.net_pods import NetPods, net_pods
from tests.live.own_netns import ip, own_netns
from tests.live.running import until

pytestmark = pytest.mark.live


class Node:
    """A host namespace with pods, read a second after the last time."""

    def __init__(self, pods: NetPods) -> None:
        self.pods = pods
        self.links = Links()
        self.nets = PodNets(pods.places)
        self.at = 100.0

    def read(self, *members: Member, later_s: float = 1.0) -> tuple[PodNet, ...]:
        self.at += later_s
        return self.nets.read(members, self.links.peers(self.at), self.at)

    def v2(self, cgroup: str) -> tuple[int, int]:
        return self.pods.v2_id(cgroup), 2


@pytest.fixture
def node() -> Iterator[Node]:
    with own_netns(), net_pods() as pods:
        made = Node(pods)
        try:
            yield made
        finally:
            made.links.close()
            made.nets.close()


def wire(pid: int, number: int, bridge: str = "") -> None:
    """Give a pod eth0 with the addresses 10.1.0.N and fd00:1::N; its host side is called podN."""
    master = [f"link set pod{number} master {bridge}"] if bridge else []
    ip(f"link add pod{number} type veth peer name eth0 netns {pid}", *master, f"link set pod{number} up")
    ip(
        "link set lo up",
        "link set eth0 up",
        f"addr add 10.1.0.{number}/24 dev eth0",
        f"addr add fd00:1::{number}/64 dev eth0 nodad",
        pid=pid,
    )


def test_a_pod_in_its_own_namespace_has_addresses_veths_and_a_bridge(node: Node) -> None:
    ip("link add br0 type bridge")
    cgroup = node.pods.make("own")
    wire(node.pods.run(cgroup), 7, "br0")
    (found,) = node.read(node.pods.member(cgroup))
    cgroup_id, level = node.v2(cgroup)
    assert found == PodNet(
        uid=cgroup,
        cgroup_id=cgroup_id,
        level=level,
        addresses=("10.1.0.7", "fd00:1::7"),
        veths=("pod7",),
        bridge="br0",
    )


def test_a_pod_in_our_namespace_is_told_by_its_cgroup_alone(node: Node) -> None:
    ip("addr add 10.9.0.1/24 dev lo")
    cgroup = node.pods.make("host")
    node.pods.run(cgroup, own_network=False)
    (found,) = node.read(node.pods.member(cgroup))
    cgroup_id, level = node.v2(cgroup)
    assert found == PodNet(uid=cgroup, host_network=True, cgroup_id=cgroup_id, level=level)


def test_the_processes_of_a_pod_may_be_in_nested_cgroups_and_most_of_them_decide(node: Node) -> None:
    cgroup = node.pods.make("pod")
    nested = [node.pods.make(f"pod/{name}") for name in ("pause", "app", "inner")]
    sandbox = node.pods.run(nested[0])
    wire(sandbox, 3)
    wire(node.pods.run(nested[2]), 4)
    member = node.pods.member(cgroup, *nested)
    (tie,) = node.read(member)
    assert tie.addresses == ("10.1.0.3", "fd00:1::3")
    node.pods.run(nested[1], own_network=False)
    node.pods.run(cgroup, own_network=False)
    (found,) = node.read(member, later_s=60.0)
    assert found.host_network


def test_a_pod_is_seen_when_its_first_process_comes_and_its_addresses_when_they_do(node: Node) -> None:
    cgroup = node.pods.make("late")
    member = node.pods.member(cgroup)
    (empty,) = node.read(member)
    assert (empty.why, empty.host_network, empty.addresses) == (NO_PROCESS, False, ())
    pid = node.pods.run(cgroup)
    (started,) = node.read(member)
    assert (started.why, started.addresses, started.cgroup_id) == ("", (), node.pods.v2_id(cgroup))
    wire(pid, 5)
    (wired,) = node.read(member)
    assert (wired.addresses, wired.veths) == (("10.1.0.5", "fd00:1::5"), ("pod5",))


def test_addresses_that_change_later_are_found_in_turn(node: Node) -> None:
    cgroup = node.pods.make("moving")
    pid = node.pods.run(cgroup)
    wire(pid, 5)
    member = node.pods.member(cgroup)
    (before,) = node.read(member)
    ip("addr add 10.1.0.55/24 dev eth0", "addr del fd00:1::5/64 dev eth0", pid=pid)
    assert node.read(member) == (before,)
    (after,) = node.read(member, later_s=30.0)
    assert after.addresses == ("10.1.0.5", "10.1.0.55")


def test_a_sandbox_that_is_made_anew_in_the_same_cgroup_is_seen_by_its_veth(node: Node) -> None:
    cgroup = node.pods.make("sandbox")
    first = node.pods.run(cgroup)
    wire(first, 5)
    member = node.pods.member(cgroup)
    node.read(member)
    node.pods.end(first)
    until(lambda: "pod5" not in dict(socket.if_nameindex()).values(), "the namespace ends, and its veth")
    wire(node.pods.run(cgroup), 6)
    (after,) = node.read(member)
    assert (after.addresses, after.veths) == (("10.1.0.6", "fd00:1::6"), ("pod6",))


def test_an_address_that_went_to_a_new_pod_is_no_longer_the_old_ones(node: Node) -> None:
    cgroups = [node.pods.make(name) for name in ("old", "new")]
    pid = node.pods.run(cgroups[0])
    wire(pid, 5)
    old = node.pods.member(cgroups[0])
    node.read(old)
    ip("addr flush dev eth0", "addr add 10.1.0.99/24 dev eth0", pid=pid)
    other = node.pods.run(cgroups[1])
    ip(
        "link add dummy0 type veth peer name d",
        "addr add 10.1.0.5/32 dev dummy0",
        "link set dummy0 up",
        pid=other,
    )
    (first, second) = node.read(old, node.pods.member(cgroups[1]))
    assert (first.addresses, second.addresses) == (("10.1.0.99",), ("10.1.0.5",))


def test_a_pod_that_is_gone_is_out_and_one_made_anew_under_its_name_is_another(node: Node) -> None:
    cgroup = node.pods.make("again")
    pid = node.pods.run(cgroup)
    wire(pid, 5)
    member = node.pods.member(cgroup)
    (before,) = node.read(member)
    assert node.read() == ()
    node.pods.end(pid)
    node.pods.vanish(cgroup)
    node.pods.make("again")
    (after,) = node.read(node.pods.member(cgroup))
    assert (after.why, after.addresses) == (NO_PROCESS, ())
    assert after.cgroup_id != before.cgroup_id


def test_a_process_that_is_in_another_v2_cgroup_gives_the_pod_none(node: Node) -> None:
    if node.pods.places.walk.version == 2:
        pytest.skip("pods are found in the v2 hierarchy here")
    cgroup = node.pods.make("hybrid")
    node.pods.run(cgroup, only_walked=True)
    (found,) = node.read(node.pods.member(cgroup))
    assert (found.cgroup_id, found.level, found.why) == (None, 0, "")


def test_tiers_are_told_by_their_path_alone(node: Node) -> None:
    cgroup = node.pods.make("tier")
    cgroup_id, level = node.v2(cgroup)
    there, missing = node.nets.tiers((cgroup, "na-test-none/batch"))
    assert there == PodNet(uid=cgroup, cgroup_id=cgroup_id, level=level)
    assert missing.cgroup_id is None
    assert "na-test-none/batch" in missing.why


def test_nothing_is_kept_open(node: Node) -> None:
    members = []
    for number in range(3):
        cgroup = node.pods.make(f"pod{number}")
        wire(node.pods.run(cgroup), number + 2)
        members.append(node.pods.member(cgroup))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        node.read(*members, later_s=40.0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pod_that_gives_itself_thousands_of_addresses_has_none_of_them_in_our_maps(node: Node) -> None:
    cgroup = node.pods.make("greedy")
    pid = node.pods.run(cgroup)
    wire(pid, 7)
    ip(*[f"addr add 10.2.{n >> 8}.{n & 255}/32 dev eth0" for n in range(MOST_ADDRESSES)], pid=pid)
    (found,) = node.read(node.pods.member(cgroup))
    assert found.addresses == ()
    assert found.why == f"it has more than {MOST_ADDRESSES} addresses"


def test_a_pod_with_more_routes_than_are_read_is_said_to_be_unknown(node: Node) -> None:
    cgroup = node.pods.make("router")
    pid = node.pods.run(cgroup)
    wire(pid, 7)
    ip(*[f"route add 11.{n >> 8}.{n & 255}.0/24 dev eth0" for n in range(12000)], pid=pid)
    (found,) = node.read(node.pods.member(cgroup))
    assert found.addresses == ()
    assert "fib_trie is longer than" in found.why
