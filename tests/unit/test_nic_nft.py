"""What our nftables table holds for whose traffic, and which messages take the kernel there."""

from __future__ import annotations

import socket
import sys

import pyroute2.netlink.nfnetlink
import pytest
from pyroute2.netlink.nfnetlink import nftsocket
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
    Meta,
)

from nodeagent.kernel.nic import nf_tables
from nodeagent.kernel.nic.nft_batch import changed, elements_of, replaced, size
from nodeagent.kernel.nic.nft_rules import Contents, contents
from nodeagent.kernel.nic.nft_wire import Value, covers, encoded, parsed
from nodeagent.model.nic import Classifier, Marks
from nodeagent.model.pod import Qos

BATCH = (0x4E510030).to_bytes(4, sys.byteorder)
MID = (0x4E510020).to_bytes(4, sys.byteorder)
MARKS = Marks(
    Classifier.NFT,
    "",
    cgroups=((1, 71, Qos.BATCH), (3, 72, Qos.MID), (3, 73, Qos.BATCH)),
    addresses=(("10.1.2.3", Qos.BATCH), ("fd00::5", Qos.MID)),
)


def cgroup_key(number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder)


def rule_words(table: Contents, chain: str) -> list[list[Value]]:
    return [[expression[1] for expression in rule] for rule in table.rules[chain]]


def test_each_map_holds_the_class_of_its_kind_of_key() -> None:
    (table,) = contents(MARKS)
    assert table.family == NFPROTO_INET
    assert table.elements == {
        "cgroups": {cgroup_key(71): BATCH, cgroup_key(72): MID, cgroup_key(73): BATCH},
        "addresses4": {bytes([10, 1, 2, 3]): BATCH},
        "addresses6": {socket.inet_pton(socket.AF_INET6, "fd00::5"): MID},
    }


def test_there_is_one_rule_for_each_level_and_the_deepest_speaks_last() -> None:
    (table,) = contents(MARKS)
    assert [rule[0][2] for rule in table.rules["output"]] == [{1: 3, 2: 1, 3: 1}, {1: 3, 2: 1, 3: 3}]
    assert rule_words(table, "output") == [["socket", "lookup", "meta"]] * 2


def test_an_address_is_looked_at_only_in_a_header_of_its_protocol() -> None:
    for table in contents(MARKS, bridge=True):
        chain = table.chains[-1].name
        assert rule_words(table, chain) == [["meta", "cmp", "payload", "lookup", "meta"]] * 2


def test_bridged_pods_have_a_table_of_their_own_without_cgroups() -> None:
    inet, bridge = contents(MARKS, bridge=True)
    assert (inet,) == contents(MARKS)
    assert bridge.family == NFPROTO_BRIDGE
    assert bridge.elements == {name: inet.elements[name] for name in ("addresses4", "addresses6")}


def test_classes_of_cgroup_v1_are_taken_first_and_only_ours() -> None:
    (table,) = contents(MARKS, net_cls=True)
    words = rule_words(table, "output")
    assert words[:3] == [["meta", "cmp", "immediate", "meta"]] * 3
    assert len(words) == 5


@pytest.mark.parametrize("arrived", [("10.1.2.4", Qos.BATCH), ("fd00::6", Qos.MID)])
def test_a_pod_that_arrives_or_leaves_is_one_element(arrived: tuple[str, Qos]) -> None:
    (few,) = contents(MARKS)
    (many,) = contents(Marks(Classifier.NFT, "", MARKS.cgroups, (*MARKS.addresses, arrived)))
    assert few.formed_as(many)
    coming, going = [*changed(many, few)], [*changed(few, many)]
    assert [message.kind for message in coming] == [NFT_MSG_NEWSETELEM]
    assert [message.kind for message in going] == [NFT_MSG_DELSETELEM]
    assert size(coming) == size(going) == 1


def test_a_pod_of_another_class_is_taken_out_before_it_is_put_in() -> None:
    (before,) = contents(Marks(Classifier.NFT, "", (), (("10.0.0.1", Qos.BATCH),)))
    (after,) = contents(Marks(Classifier.NFT, "", (), (("10.0.0.1", Qos.MID),)))
    kinds = [message.kind for message in changed(after, before)]
    assert kinds == [NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM]


def test_nothing_is_to_do_where_all_is_held_already() -> None:
    for table in contents(MARKS, bridge=True, net_cls=True):
        assert [*changed(table, table)] == []


def test_a_new_level_changes_the_rules_of_one_chain_and_no_map() -> None:
    (table,) = contents(MARKS)
    (deeper,) = contents(Marks(Classifier.NFT, "", (*MARKS.cgroups, (5, 74, Qos.LS)), MARKS.addresses))
    assert deeper.formed_as(table)
    kinds = [message.kind for message in changed(deeper, table)]
    assert kinds == [NFT_MSG_DELRULE] + [NFT_MSG_NEWRULE] * 3 + [NFT_MSG_NEWSETELEM]


def test_the_whole_table_is_deleted_and_declared_in_one_batch() -> None:
    (table,) = contents(MARKS)
    kinds = [message.kind for message in replaced(table)]
    assert kinds[:3] == [NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE]
    assert kinds[3:] == (
        [NFT_MSG_NEWSET] * 3 + [NFT_MSG_NEWCHAIN] * 2 + [NFT_MSG_NEWRULE] * 4 + [NFT_MSG_NEWSETELEM] * 3
    )


def test_no_attribute_outgrows_its_16_bits_with_5000_pods_and_all_come_back() -> None:
    pods = tuple((f"fd00::{number:x}", Qos.BATCH) for number in range(5000))
    (table,) = contents(Marks(Classifier.NFT, "", addresses=pods))
    (none,) = contents(Marks(Classifier.NFT, ""))
    messages = [*changed(table, none)]
    answers = [encoded(message.attributes) for message in messages]
    assert size(messages) == 5000
    assert all(len(value) < 1 << 16 for answer in answers for _, value in parsed(answer))
    assert elements_of(answers) == table.elements["addresses6"]


def test_what_is_found_covers_what_is_wanted_whatever_the_kernel_adds_or_its_order() -> None:
    wanted: Value = {1: "name", 4: {1: 3, 2: -150}, 9: [{1: "meta"}, {1: "cmp"}]}
    assert covers(encoded({8: 77, 9: [{1: "meta", 3: 5}, {1: "cmp"}], 4: {2: -150, 1: 3}, 1: "name"}), wanted)
    assert not covers(encoded({1: "name", 4: {1: 3, 2: -150}}), wanted)
    assert not covers(encoded({1: "name", 4: {1: 3, 2: -149}, 9: [{1: "meta"}, {1: "cmp"}]}), wanted)
    assert not covers(encoded({1: "name", 4: {1: 3, 2: -150}, 9: [{1: "cmp"}, {1: "meta"}]}), wanted)
    assert not covers(encoded({1: "name", 4: {1: 3, 2: -150}, 9: [{1: "meta"}]}), wanted)


def test_the_kernels_numbers_are_those_that_pyroute2_has() -> None:
    ours = {name: value for name, value in vars(nf_tables).items() if name.isupper()}
    meta = {name: value for name, value in ours.items() if name.startswith("NFT_META_")}
    assert meta == {name: int(Meta[name]) for name in meta}
    places = (pyroute2.netlink, pyroute2.netlink.nfnetlink, nftsocket)
    for name in ours.keys() - meta.keys():
        assert ours[name] == next(getattr(place, name) for place in places if hasattr(place, name)), name
