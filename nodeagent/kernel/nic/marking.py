"""What tells whose a packet is, by the step of the ladder that was chosen.

Invariant: one step at a time; another one is there before the last is removed, so no packet loses its class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
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
            for index in trees:
                self._filters.set(index, marks.addresses)
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
        """What an earlier run or another policy left. All are tried, then the first error is raised.

        A kernel without the means has nothing of ours.
        """
        ways: list[Callable[[], bool]] = []
        if by not in _BY_TABLE:
            ways.append(self._remove_table)
        if by is not Classifier.BPF:
            ways.append(lambda: self._bpf().remove())
        if by is not Classifier.U32:
            ways += [partial(self._remove_filters, index) for index in trees]
        removed, failed = False, None
        for way in ways:
            try:
                with contextlib.suppress(Unsupported, Gone):
                    removed |= way()
            except AgentError as error:
                failed = failed or error
        if failed:
            raise failed
        return removed

    def _remove_table(self) -> bool:
        self._table = self._table or Table()
        return self._table.remove()

    def _remove_filters(self, index: int) -> bool:
        return self._filters.remove(index) > 0

    def _bpf(self) -> BpfMarks:
        from nodeagent.kernel.nic.bpf.marks import BpfMarks  # here: few need it

        self._programs = self._programs or BpfMarks()
        return self._programs
