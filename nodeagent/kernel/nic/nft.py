"""Our nftables table in the kernel: looked at, compared, and written in one batch where it differs.

The kernel counts a generation with every change of nftables in the network namespace: while it stays, there
is nothing to read; and a batch names the generation that it was computed for, so that no change is lost.
Maps and chains are kept while they are of the wanted form. Only a table of another version is replaced as a
whole, and then a packet may pass between the hooks of the two: 2 did in 6000 replacements at 4000 packets/s.
Invariant: a packet meets the old or the new rules of a chain, never none; no table is written but "nodeagent"
of the families inet and bridge.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.kernel.nic import nft_batch
from nodeagent.kernel.nic.nf_tables import (
    NFT_MSG_DELTABLE,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
    NLM_F_DUMP,
)
from nodeagent.kernel.nic.nft_rules import Contents, Rule, contents
from nodeagent.kernel.nic.nft_wire import Attributes, Interrupted, Message, Wire, covers
from nodeagent.model.errors import Refused
from nodeagent.model.nic import Marks

_ATTEMPTS = 10  # somebody else may write nftables just now (kube-proxy, a CNI plug-in)


class Table:
    """Our table `nodeagent` of the inet family and, where it is asked for, its twin of the bridge family,
    in the network namespace in which it is opened. It keeps a socket open: close() it.
    """

    def __init__(self) -> None:
        """Raises Unsupported, Refused."""
        self._wire = Wire()
        self._generation: int | None = None  # in which the kernel held this:
        self._held: tuple[Contents, ...] = ()

    def close(self) -> None:
        """Give the descriptor back; the table stays."""
        self._wire.close()

    def set(self, marks: Marks, *, bridge: bool = False, net_cls: bool = False) -> int:
        """Make it hold `marks`: also for what is bridged with `bridge`, by cgroup v1 classes with `net_cls`.

        What is there already is adopted. The number of things written, 0 when nothing was to do. Raises
        Unsupported and Refused; then nothing was written.
        """
        return self._reach(contents(marks, bridge=bridge, net_cls=net_cls))

    def remove(self) -> bool:
        """Was there one? Raises Unsupported, Refused."""
        return self._reach(()) > 0

    def exists(self) -> bool:
        """Is there a table of ours, whoever wrote it? Raises Unsupported, Refused."""
        return any(self._wire.ask(_got(family)) for family in nft_batch.FAMILIES)

    def _reach(self, wanted: tuple[Contents, ...]) -> int:
        for _ in range(_ATTEMPTS):
            try:
                generation = self._wire.generation()
                messages = [*self._differences(wanted, known=generation == self._generation)]
                if messages:
                    self._wire.commit(messages, generation)
                    generation = generation % 0xFFFFFFFF + 1  # it is never 0 (nf_tables_commit)
            except Interrupted:
                continue
            self._generation, self._held = generation, wanted
            return nft_batch.size(messages)
        raise Refused("nftables: somebody else changes it all the time", hint="it is tried again")

    def _differences(self, wanted: tuple[Contents, ...], known: bool) -> Iterator[Message]:
        """What turns the kernel's tables into these. With `known` they are still as they were set last."""
        for family in nft_batch.FAMILIES:
            want, last = _of(family, wanted), _of(family, self._held)
            if want is None:
                if last is not None if known else self._wire.ask(_got(family)):
                    yield nft_batch.table(family, NFT_MSG_DELTABLE)
                continue
            if known:
                held = last if last is not None and last.formed_as(want) else None
            else:
                held = self._read(want)
            yield from nft_batch.replaced(want) if held is None else nft_batch.changed(want, held)

    def _read(self, want: Contents) -> Contents | None:
        """What it holds, without rules that are not as wanted; None where there is no table of this form."""
        ask, family = self._wire.ask, want.family
        table = ask(_got(family))
        if not table or not covers(table[0], {nft_batch.TABLE_USE: len(want.maps) + len(want.chains)}):
            return None
        for message in nft_batch.declared(want):
            # Each GET is the number after its NEW, and finds by the same attributes.
            answer = ask(message._replace(kind=message.kind + 1, flags=0))
            if not answer or not covers(answer[0], message.attributes):
                return None
        rules = self._rules(want)
        elements = {}
        for name in want.elements:
            # NFTA_SET_ELEM_LIST_TABLE, _SET
            dump = _dumped(NFT_MSG_GETSETELEM, family, {1: nft_batch.NAME, 2: name})
            elements[name] = nft_batch.elements_of(ask(dump))
        return Contents(family, want.maps, want.chains, rules, elements)

    def _rules(self, want: Contents) -> dict[str, tuple[Rule, ...]]:
        """Those of each chain where they are as wanted."""
        answers = self._wire.ask(_dumped(NFT_MSG_GETRULE, want.family, {1: nft_batch.NAME}))
        found: dict[str, tuple[Rule, ...]] = {}
        for name, rules in want.rules.items():
            held = [answer for answer in answers if covers(answer, {2: name})]  # NFTA_RULE_CHAIN
            wanted = [message.attributes for message in nft_batch.rules(want, name)]
            if len(held) == len(wanted) and all(map(covers, held, wanted)):
                found[name] = rules
        return found


def _of(family: int, tables: tuple[Contents, ...]) -> Contents | None:
    return next((table for table in tables if table.family == family), None)


def _got(family: int) -> Message:
    return nft_batch.table(family, NFT_MSG_GETTABLE)._replace(flags=0)


def _dumped(kind: int, family: int, attributes: Attributes) -> Message:
    return _got(family)._replace(kind=kind, attributes=attributes, flags=NLM_F_DUMP)
