"""Putting everything back, while the agent lives or as it ends: values, pages, NICs; the log is told."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.model.errors import AgentError
from nodeagent.originals import Originals
from nodeagent.restore import give_back

log = structlog.get_logger()


class Leaving:
    """Of one agent; what it does can be done again, and undone by the next plan."""

    def __init__(self, host: Host, originals: Originals, keeper: Keeper) -> None:
        self._host = host
        self._originals = originals
        self._keeper = keeper

    def all(self) -> bool:
        """All is as it was before us; False while something could not be given back."""
        self.nics()
        self.values()
        return not self._originals.held

    def nics(self) -> None:
        """Traffic is not shaped any more."""
        if self._host.network is not None:
            tell_of_nics(*self._host.network.leave())

    def values(self) -> None:
        """Every knob in the ledger has its original value, and pages are let be."""
        self._host.stop_moving()
        try:
            done = give_back(self._originals, self._host.knobs, self._keeper)
        except AgentError as error:
            log.error("giveback.failed", error=str(error), hint="nodeagent restore")
            return
        self.tell_of_systemd()
        for knob, why in done.failed:
            log.warning("giveback.refused", knob=str(knob), error=why)
        for reading in done.left:
            log.warning("giveback.left", knob=str(reading.knob), found=reading.actual, ours=reading.written)
        log.info("giveback.done", restored=len(done.put_back), left=len(done.left), gone=len(done.gone))

    def tell_of_systemd(self) -> None:
        for news in self._keeper.news:
            log.warning("systemd", why=news)
        self._keeper.news.clear()


def tell_of_nics(removed: Sequence[str], failed: Sequence[str]) -> None:
    """What was removed of what shaped traffic, and what could not be."""
    for failure in failed:
        log.warning("nic.left", why=failure, hint="nodeagent restore")
    if removed:
        log.info("nic.released", removed=list(removed))
