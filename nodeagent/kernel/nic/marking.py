"""What tells whose a packet is, by the step of the ladder that was chosen.

Invariant: one step at a time; another one is there before the last is removed, so no packet loses its class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

from nodeagent.kernel.nic.nft import Table
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.u32 import AddressFilters
from nodeagent.model.errors import AgentError, Gone, Unsupported
from nodeagent.model.nic import Classifier, Marks

if TYPE_CHECKING:
    from nodeagent.kernel.nic.bpf.marks import BpfMarks

_BY_TABLE = frozenset({Classifier.NFT, Classifier.NET_CLS})


class Marking:
    """Packets' classes in this network namespace; `close` it."""

    def __init__(self) -> None:
        self._rtnetlink = Rtnetlink()
        self._filters = AddressFilters(self._rtnetlink)
        self._table: Table | None = None
        self._programs: BpfMarks | None = None
        self._by: Classifier | None = None  # None: an earlier run may have left anything

    def set(self, marks: Marks, indexes: Collection[int], trees: Collection[int], *, bridged: bool) -> None:
        """Have packets for the NICs `indexes` marked; `trees` are those of them with a tree. AgentError.

        `bridged`: one of them is a port of a bridge.
        """
        by = marks.classifier
        if by in _BY_TABLE:
            self._table = self._table or Table()
            self._table.set(marks, bridge=bridged, net_cls=by is Classifier.NET_CLS)
        elif by is Classifier.BPF:
            self._bpf().set(marks, indexes)
        elif by is Classifier.U32:
            _all([partial(self._filters.set, index, marks.addresses) for index in trees])
        if by is not self._by:
            self._remove_others(by, trees)
            self._by = by

    def remove(self, trees: Collection[int]) -> bool:
        """Nothing of ours marks packets any more; `trees` are the NICs with a tree of ours. AgentError."""
        if self._by is Classifier.NONE:
            return False
        removed = self._remove_others(Classifier.NONE, trees)
        self._by = Classifier.NONE
        return removed

    def close(self) -> None:
        """What marks packets stays."""
        for part in (self._table, self._programs, self._rtnetlink):
            if part is not None:
                part.close()

    def _remove_others(self, by: Classifier, trees: Collection[int]) -> bool:
        """What an earlier run or another policy left. A kernel without the means has nothing of ours."""
        ways: list[Callable[[], object]] = []
        if by not in _BY_TABLE:
            ways.append(self._remove_table)
        if by is not Classifier.BPF:
            ways.append(lambda: self._bpf().remove())
        if by is not Classifier.U32:
            ways += [partial(self._filters.remove, index) for index in trees]
        return _all(ways, tolerated=(Unsupported, Gone))

    def _remove_table(self) -> bool:
        self._table = self._table or Table()
        return self._table.remove()

    def _bpf(self) -> BpfMarks:
        from nodeagent.kernel.nic.bpf.marks import BpfMarks  # here: few need it

        self._programs = self._programs or BpfMarks()
        return self._programs


def _all(ways: Iterable[Callable[[], object]], tolerated: tuple[type[AgentError], ...] = ()) -> bool:
    """Try all, then raise the first error. True when one of them had something to do."""
    done, failed = False, None
    for way in ways:
        try:
            with contextlib.suppress(*tolerated):
                done |= bool(way())
        except AgentError as error:
            failed = failed or error
    if failed:
        raise failed
    return done
