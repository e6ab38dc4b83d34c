"""What ends with the agent, or was left by one before it: given back, and told in the log."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.model.errors import AgentError
from nodeagent.originals import Originals
from nodeagent.restore import give_back

log = structlog.get_logger()


def give_back_values(host: Host, originals: Originals, keeper: Keeper) -> None:
    """Put back what `originals` holds; what cannot be is told, and stays in it."""
    host.stop_moving()
    try:
        done = give_back(originals, host.knobs, keeper)
    except AgentError as error:
        log.error("giveback.failed", error=str(error), hint="nodeagent restore")
        return
    tell_of_systemd(keeper)
    for knob, why in done.failed:
        log.warning("giveback.refused", knob=str(knob), error=why)
    for reading in done.left:
        log.warning("giveback.left", knob=str(reading.knob), found=reading.actual, ours=reading.written)
    log.info("giveback.done", restored=len(done.put_back), left=len(done.left), gone=len(done.gone))


def leave_nics(host: Host) -> None:
    """Let traffic go unshaped."""
    if host.network is not None:
        tell_of_nics(*host.network.leave())


def tell_of_nics(removed: Sequence[str], failed: Sequence[str]) -> None:
    """What no longer shapes traffic, and what could not be removed."""
    for failure in failed:
        log.warning("nic.left", why=failure, hint="nodeagent restore")
    if removed:
        log.info("nic.released", removed=list(removed))


def tell_of_systemd(keeper: Keeper) -> None:
    """The news of what systemd keeps; they are told once."""
    for news in keeper.news:
        log.warning("systemd", why=news)
    keeper.news.clear()
