"""Our nftables table on the real kernel: whose packets it puts into which class, and whose it is."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
)

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.nic.nft import Table
from nodeagent.kernel.nic.nft_batch import changed
from nodeagent.kernel.nic.nft_rules import contents
from nodeagent.kernel.nic.nft_wire import Attributes, Interrupted, Message, Wire
from nodeagent.model.errors import Refused, Unsupported
from nodeagent.model.nic import Classifier, Marks
from nodeagent.model.pod import Qos
from tests.live.net_cls_place import net_cls
from tests.live.nft_place import (
    BRIDGED,
    BRIDGED_PEER,
    PEER,
    POD,
    Place,
    cgroup,
    everything,
    inside,
)
from tests.live.running import SLOWNESS, until

pytestmark = pytest.mark.live
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
NET_CLS_BATCH = 0x4E510030


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = Place()
    try:
        place.make()
        yield place
    finally:
        place.remove()


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    with inside(place.host):
        wire = Wire()
    with contextlib.closing(wire):
        yield wire
        wire.commit([Message("all", NFT_MSG_DELTABLE, 0, {})], wire.generation())


@pytest.fixture
def table(place: Place, wire: Wire) -> Iterator[Table]:
    with inside(place.host):
        table = Table()
    with contextlib.closing(table):
        yield table


@pytest.fixture(scope="module")
def v2_root() -> str:
    root = find_hierarchies().unified
    if not root:
        pytest.skip("no cgroup v2 is mounted")
    return root


def pods(*addresses: str, qos: Qos = Qos.BATCH) -> Marks:
    return Marks(Classifier.NFT, "", addresses=tuple((address, qos) for address in sorted(addresses)))


def cgroups(*entries: tuple[int, Path]) -> Marks:
    return Marks(Classifier.NFT, "", tuple((level, path.stat().st_ino, Qos.BATCH) for level, path in entries))


def write(wire: Wire, kind: int, family: int, attributes: Attributes, flags: int = 0) -> None:
    wire.commit([Message("somebody", kind, family, attributes, flags)], wire.generation())


@VERSIONS
def test_a_process_in_a_cgroup_is_counted_in_its_class(
    place: Place, table: Table, v2_root: str, version: int
) -> None:
    with cgroup(v2_root) as batch, cgroup(v2_root) as other:
        table.set(cgroups((1, batch)))
        assert place.sent(place.host, version, PEER[version], cgroup=str(batch)) is Qos.BATCH
        assert place.sent(place.host, version, PEER[version], cgroup=str(other)) is Qos.LS
        table.set(cgroups())
        assert place.sent(place.host, version, PEER[version], cgroup=str(batch)) is Qos.LS


def test_all_below_a_tier_is_of_its_class_unless_an_entry_below_says_more(
    place: Place, table: Table, v2_root: str
) -> None:
    with cgroup(v2_root, "pod", "container") as tier:
        inner = tier / "pod" / "container"
        table.set(cgroups((1, tier)))
        assert place.sent(place.host, 4, PEER[4], cgroup=str(inner)) is Qos.BATCH
        both = (*cgroups((1, tier)).cgroups, (2, (tier / "pod").stat().st_ino, Qos.MID))
        table.set(Marks(Classifier.NFT, "", both))
        assert place.sent(place.host, 4, PEER[4], cgroup=str(inner)) is Qos.MID
        assert place.sent(place.host, 4, PEER[4], cgroup=str(tier)) is Qos.BATCH


def test_a_cgroup_made_anew_under_its_old_path_is_another(place: Place, table: Table, v2_root: str) -> None:
    with cgroup(v2_root) as batch:
        table.set(cgroups((1, batch)))
        batch.rmdir()
        batch.mkdir()
        assert place.sent(place.host, 4, PEER[4], cgroup=str(batch)) is Qos.LS
        assert table.set(cgroups((1, batch))) == 2  # the dead one out, the new one in
        assert place.sent(place.host, 4, PEER[4], cgroup=str(batch)) is Qos.BATCH


@VERSIONS
def test_a_routed_pod_is_counted_in_its_class_until_it_leaves(
    place: Place, table: Table, version: int
) -> None:
    assert place.sent(place.pod, version, PEER[version]) is Qos.LS
    table.set(pods(POD[version]))
    assert place.sent(place.pod, version, PEER[version]) is Qos.BATCH
    assert table.set(pods(POD[version], qos=Qos.MID)) == 2
    assert place.sent(place.pod, version, PEER[version]) is Qos.MID
    assert table.set(pods()) == 1
    assert place.sent(place.pod, version, PEER[version]) is Qos.LS


def test_a_pod_behind_masquerade_keeps_its_class(place: Place, table: Table, wire: Wire) -> None:
    masquerade(wire)
    table.set(pods(POD[4]))
    with inside(place.peer):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind((PEER[4], 9))
        receiver.settimeout(20 * SLOWNESS)
        assert place.sent(place.pod, 4, PEER[4]) is Qos.BATCH
        assert receiver.recvfrom(200)[1][0] == "10.77.0.1"


@VERSIONS
@pytest.mark.parametrize("nf_call", [0, 1])
def test_a_bridged_pod_is_counted_in_its_class(
    place: Place, table: Table, version: int, nf_call: int
) -> None:
    for name in ("iptables", "ip6tables"):
        if Path("/proc/sys/net/bridge", f"bridge-nf-call-{name}").exists():
            place.sysctl(f"bridge/bridge-nf-call-{name}", nf_call)
        elif nf_call:
            pytest.skip("no br_netfilter: bridged packets never meet the inet family")

    def counted() -> Qos:
        return place.sent(place.bridged, version, BRIDGED_PEER[version], nic="nic1")

    table.set(pods(BRIDGED[version]))
    assert counted() is (Qos.BATCH if nf_call else Qos.LS)
    table.set(pods(BRIDGED[version]), bridge=True)
    assert counted() is Qos.BATCH
    table.set(pods(), bridge=True)
    assert counted() is Qos.LS


def test_a_process_in_a_cgroup_of_version_1_is_counted_by_its_net_cls(
    place: Place, table: Table, tmp_path: Path
) -> None:
    with net_cls(tmp_path) as root, cgroup(str(root)) as batch:
        (batch / "net_cls.classid").write_text(str(NET_CLS_BATCH))
        table.set(pods())
        assert place.sent(place.host, 4, PEER[4], cgroup=str(batch)) is Qos.LS
        table.set(pods(), net_cls=True)
        for version in (4, 6):
            assert place.sent(place.host, version, PEER[version], cgroup=str(batch)) is Qos.BATCH
        (batch / "net_cls.classid").write_text("0x100001")  # somebody else's class
        assert place.sent(place.host, 4, PEER[4], cgroup=str(batch)) is Qos.LS


def test_no_packet_loses_its_class_while_levels_and_entries_come_and_go(
    place: Place, table: Table, v2_root: str
) -> None:
    with cgroup(v2_root, "pod") as tier:
        flat = Marks(Classifier.NFT, "", cgroups((1, tier)).cgroups, pods(POD[4]).addresses)
        deep = Marks(Classifier.NFT, "", cgroups((1, tier), (2, tier / "pod")).cgroups, flat.addresses)
        table.set(flat)
        before = place.packets(Qos.BATCH)
        count, times = 2000, 0
        with place.sending(place.pod, 4, PEER[4], count) as sender:
            while sender.poll() is None:
                times += 1
                assert table.set(deep if times % 2 else flat) > 0
        until(lambda: place.packets(Qos.BATCH) - before >= count, "every packet in its class")
        assert place.packets(Qos.BATCH) - before == count
        assert times > 20


def test_a_table_left_by_a_dead_agent_is_adopted_and_cleaned_of_the_gone(
    place: Place, table: Table, wire: Wire
) -> None:
    left = pods(POD[4], POD[6], "10.1.1.1")
    table.set(left, bridge=True)
    generation = wire.generation()
    with inside(place.host):
        heir = Table()
    with contextlib.closing(heir):
        assert heir.exists()
        assert heir.set(left, bridge=True) == 0
        assert wire.generation() == generation
        assert heir.set(pods(POD[4], POD[6]), bridge=True) == 2  # one element in each family
        assert heir.set(pods(POD[4], POD[6])) == 1  # the twin
        assert heir.remove()
        assert not heir.remove()
        assert not heir.exists()


def test_flush_ruleset_by_others_is_seen_and_repaired(place: Place, table: Table, wire: Wire) -> None:
    marks = pods(POD[4])
    table.set(marks)
    assert table.set(marks) == 0
    write(wire, NFT_MSG_DELTABLE, 0, {})
    assert place.sent(place.pod, 4, PEER[4]) is Qos.LS
    assert table.set(marks) > 0
    assert table.set(marks) == 0
    assert place.sent(place.pod, 4, PEER[4]) is Qos.BATCH


def test_whatever_others_change_in_our_table_is_seen_and_repaired(table: Table, wire: Wire) -> None:
    marks = pods(POD[4])
    ours: Attributes = {1: "nodeagent"}
    (wanted,) = contents(marks)
    (fewer,) = contents(pods())
    (more,) = contents(pods(POD[4], "10.9.9.9"))
    created = NLM_F_CREATE | NLM_F_APPEND
    changes = {
        "a rule less": [Message("", NFT_MSG_DELRULE, NFPROTO_INET, ours | {2: "postrouting"})],
        "a rule more": [
            Message("", NFT_MSG_NEWRULE, NFPROTO_INET, ours | {2: "output", 4: []}, created),
        ],
        "a chain more": [Message("", NFT_MSG_NEWCHAIN, NFPROTO_INET, ours | {3: "theirs"}, created)],
        "a chain less": [
            Message("", NFT_MSG_DELRULE, NFPROTO_INET, ours | {2: "output"}),
            Message("", NFT_MSG_DELCHAIN, NFPROTO_INET, ours | {3: "output"}),
        ],
        "an element less": [*changed(fewer, wanted)],
        "an element more": [*changed(more, wanted)],
        "put to sleep": [Message("", NFT_MSG_NEWTABLE, NFPROTO_INET, ours | {2: 1})],  # NFT_TABLE_F_DORMANT
    }
    for what, messages in changes.items():
        table.set(marks)
        wire.commit(messages, wire.generation())
        assert table.set(marks) > 0, what
        assert table.set(marks) == 0, what


def test_other_tables_stay_as_they_are_even_of_our_name_in_another_family(
    place: Place, table: Table, wire: Wire, v2_root: str
) -> None:
    masquerade(wire)
    masquerade(wire, "nodeagent")
    before = everything(wire)
    with cgroup(v2_root) as batch:
        table.set(Marks(Classifier.NFT, "", cgroups((1, batch)).cgroups, pods(POD[4]).addresses), bridge=True)
        assert everything(wire) != before
        table.set(pods(), net_cls=True)
    write(wire, NFT_MSG_NEWTABLE, NFPROTO_IPV4, {1: "third"}, NLM_F_CREATE)
    assert table.set(pods(), net_cls=True) == 0
    write(wire, NFT_MSG_DELTABLE, NFPROTO_IPV4, {1: "third"})
    assert table.remove()
    assert everything(wire) == before


def test_a_batch_computed_before_somebody_changed_something_is_not_carried_out(wire: Wire) -> None:
    generation = wire.generation()
    write(wire, NFT_MSG_NEWTABLE, NFPROTO_IPV4, {1: "theirs"}, NLM_F_CREATE)
    before = everything(wire)
    with pytest.raises(Interrupted):
        wire.commit([Message("", NFT_MSG_DELTABLE, NFPROTO_IPV4, {1: "theirs"})], generation)
    assert everything(wire) == before
    assert wire.generation() == generation + 1


def test_what_this_kernel_does_not_have_is_told_by_name_and_nothing_is_written(
    table: Table, wire: Wire
) -> None:
    table.set(pods(POD[4]))
    before = everything(wire)
    rule: Attributes = {1: "nodeagent", 2: "output", 4: [{1: "nosuch"}]}
    begun = Message("", NFT_MSG_NEWTABLE, NFPROTO_IPV4, {1: "half"}, NLM_F_CREATE)
    with pytest.raises(Unsupported, match="nftables: the rule: No such file") as told:
        wire.commit(
            [begun, Message("the rule", NFT_MSG_NEWRULE, NFPROTO_INET, rule, NLM_F_CREATE)], wire.generation()
        )
    assert "modprobe" in told.value.hint
    with pytest.raises(Unsupported, match="nftables: the family: "):
        wire.commit([Message("the family", NFT_MSG_NEWTABLE, 77, {1: "x"}, NLM_F_CREATE)], wire.generation())
    assert everything(wire) == before


def test_without_the_capability_it_is_refused_at_once_with_a_hint(place: Place) -> None:
    child = os.fork()
    if child == 0:  # its credentials are lost for good
        answer = 1
        with contextlib.suppress(BaseException), inside(place.host):
            os.setresuid(65534, 65534, 65534)
            try:
                Table().set(pods(POD[4]))
            except Refused as error:
                answer = 0 if "CAP_NET_ADMIN" in error.hint else 2
        os._exit(answer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_2000_pods_are_taken_in_and_let_go_and_come_back_at_a_restart(place: Place, table: Table) -> None:
    many = pods(*(f"10.{n >> 8}.{n & 255}.1" for n in range(2000)), *(f"fd00::{n:x}" for n in range(2000)))
    table.set(pods())
    assert table.set(many) == 4000
    with inside(place.host):
        heir = Table()
    with contextlib.closing(heir):
        assert heir.set(many) == 0
        assert heir.set(pods()) == 4000


def test_an_arrival_writes_one_element_and_a_steady_state_nothing(table: Table, wire: Wire) -> None:
    marks = [pods(*(f"10.0.{n >> 8}.{n & 255}" for n in range(count))) for count in (200, 201)]
    table.set(marks[0])
    assert table.set(marks[1]) == 1
    generation = wire.generation()
    assert table.set(marks[1]) == 0
    assert wire.generation() == generation


def masquerade(wire: Wire, name: str = "theirs") -> None:
    """A table of somebody else that hides pods behind the host's address."""
    created = NLM_F_CREATE | NLM_F_APPEND
    chain: Attributes = {1: name, 3: "nat", 4: {1: 4, 2: 100}, 7: "nat"}  # postrouting, srcnat
    messages = [
        Message("their table", NFT_MSG_NEWTABLE, NFPROTO_IPV4, {1: name}, created),
        Message("their chain", NFT_MSG_NEWCHAIN, NFPROTO_IPV4, chain, created),
        Message("their rule", NFT_MSG_NEWRULE, NFPROTO_IPV4, {1: name, 2: "nat", 4: [{1: "masq"}]}, created),
    ]
    try:
        wire.commit(messages, wire.generation())
    except Unsupported as error:
        pytest.skip(f"no NAT here: {error}")
