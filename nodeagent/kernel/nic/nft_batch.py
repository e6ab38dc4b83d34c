"""Contents of our table as nf_tables messages, and back.

Invariant: every batch is valid by itself: a table is declared, deleted and declared anew in one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from nodeagent.kernel.nic.nf_tables import (
    DATA_TYPE_CLASSID,
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
    NLM_F_APPEND,
    NLM_F_CREATE,
)
from nodeagent.kernel.nic.nft_rules import HOST_ORDER, Chain, Contents, Map, Rule
from nodeagent.kernel.nic.nft_wire import Attributes, Message, Value, parsed

NAME = "nodeagent"
FAMILIES = {NFPROTO_INET: "inet", NFPROTO_BRIDGE: "bridge"}
TABLE_USE = 3  # NFTA_TABLE_USE

_COMMENT = b"classes of traffic, kept by nodeagent\0"
_DELETED = frozenset({NFT_MSG_DELTABLE, NFT_MSG_DELRULE, NFT_MSG_DELSETELEM})
_ACCEPT = 1  # NF_ACCEPT
_MAP = 0x8  # NFT_SET_MAP
_ELEMENTS = 3  # NFTA_SET_ELEM_LIST_ELEMENTS
# An attribute ends at 64 KiB; an IPv6 address takes 40 bytes.
_ELEMENTS_AT_ONCE = 1000


def table(family: int, kind: int = NFT_MSG_NEWTABLE) -> Message:
    """The table itself, without anything in it and in force (no flag)."""
    return _message(kind, family, "", {1: NAME, 2: 0})  # NFTA_TABLE_NAME, _FLAGS


def declared(contents: Contents) -> tuple[Message, ...]:
    """Table, maps and chains, as the kernel tells them too."""
    family = contents.family
    return (
        table(family),
        *(_map(family, declared) for declared in contents.maps),
        *(_chain(family, declared) for declared in contents.chains),
    )


def rules(contents: Contents, chain: str) -> tuple[Message, ...]:
    """The rules of a chain."""
    return tuple(_rule(contents.family, chain, rule) for rule in contents.rules[chain])


def replaced(contents: Contents) -> Iterator[Message]:
    """The table anew, whatever there is. The kernel wants an id of a new map, and keeps a comment (v5.10)."""
    family = contents.family
    yield table(family)
    yield table(family, NFT_MSG_DELTABLE)
    for number, message in enumerate(declared(contents)):
        if message.kind == NFT_MSG_NEWTABLE:
            yield _with(message, {6: b"\0" + bytes([len(_COMMENT)]) + _COMMENT})  # NFTA_TABLE_USERDATA
        elif message.kind == NFT_MSG_NEWSET:
            yield _with(message, {10: number})  # NFTA_SET_ID
        else:
            yield message
    empty: dict[str, tuple[Rule, ...]] = dict.fromkeys(contents.rules, ())
    yield from changed(contents, Contents(family, contents.maps, contents.chains, empty, {}))


def changed(contents: Contents, held: Contents) -> Iterator[Message]:
    """What makes a table of the same form that holds `held` hold this.

    First out, then in: an element cannot change. Maps and chains stay, so that no packet falls between: it
    walks either the old or the new rules of a chain, and both find what stays in the maps.
    """
    for name, wanted in contents.rules.items():
        if held.rules.get(name) == wanted:
            continue
        if held.rules.get(name) != ():
            # NFTA_RULE_TABLE, _CHAIN: all of them
            yield _message(NFT_MSG_DELRULE, contents.family, f"rules in chain {name}", {1: NAME, 2: name})
        yield from rules(contents, name)
    for name, elements in contents.elements.items():
        there = held.elements.get(name, {})
        yield from _elements(NFT_MSG_DELSETELEM, contents.family, name, there.items() - elements.items())
        yield from _elements(NFT_MSG_NEWSETELEM, contents.family, name, elements.items() - there.items())


def elements_of(answers: Iterable[bytes]) -> dict[bytes, bytes]:
    """Key and data of each element in what a map's dump has answered."""
    found = {}
    for answer in answers:
        for _, element in parsed(dict(parsed(answer)).get(_ELEMENTS, b"")):
            held = dict(parsed(element))
            # NFTA_SET_ELEM_KEY, _DATA; NFTA_DATA_VALUE is the first and only one in each
            found[held[1][4:]] = held[2][4:8]
    return found


def size(messages: Iterable[Message]) -> int:
    """How many things they write: each element counts."""
    lists = (message.attributes.get(_ELEMENTS) for message in messages)
    return sum(len(elements) if isinstance(elements, list) else 1 for elements in lists)


def _map(family: int, wanted: Map) -> Message:
    order = b"".join(
        bytes([of, 4]) + value.to_bytes(4, sys.byteorder)
        for of, value in ((0, wanted.key_order), (1, HOST_ORDER))
    )
    # NFTA_SET_TABLE, _NAME, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN, _USERDATA
    attributes: Attributes = {1: NAME, 2: wanted.name, 3: _MAP, 4: wanted.key_type, 5: wanted.key_bytes}
    attributes |= {6: DATA_TYPE_CLASSID, 7: 4, 13: order}
    return _message(NFT_MSG_NEWSET, family, f"map {wanted.name}", attributes)


def _chain(family: int, wanted: Chain) -> Message:
    hook: Attributes = {1: wanted.hook, 2: wanted.priority}  # NFTA_HOOK_HOOKNUM, _PRIORITY
    # NFTA_CHAIN_TABLE, _NAME, _HOOK, _POLICY, _TYPE
    attributes: Attributes = {1: NAME, 3: wanted.name, 4: hook, 5: _ACCEPT, 7: "filter"}
    return _message(NFT_MSG_NEWCHAIN, family, f"chain {wanted.name}", attributes)


def _rule(family: int, chain: str, wanted: Rule) -> Message:
    # NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
    attributes: Attributes = {1: NAME, 2: chain, 4: [*wanted]}
    return _message(NFT_MSG_NEWRULE, family, f"rule in chain {chain}", attributes)


def _elements(kind: int, family: int, name: str, pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[Message]:
    ordered = sorted(pairs)
    for begin in range(0, len(ordered), _ELEMENTS_AT_ONCE):
        chunk = ordered[begin : begin + _ELEMENTS_AT_ONCE]
        some: list[Value] = [{1: {1: key}, 2: {1: data}} for key, data in chunk]
        # NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS
        yield _message(kind, family, f"elements of {name}", {1: NAME, 2: name, _ELEMENTS: some})


def _message(kind: int, family: int, what: str, attributes: Attributes) -> Message:
    path = f"table {FAMILIES[family]} {NAME}"
    flags = NLM_F_CREATE | NLM_F_APPEND if kind not in _DELETED else 0
    return Message(f"{path}: {what}" if what else path, kind, family, attributes, flags)


def _with(message: Message, attributes: Attributes) -> Message:
    return message._replace(attributes=message.attributes | attributes)
