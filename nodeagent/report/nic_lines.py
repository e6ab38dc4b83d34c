"""One line per NIC, for the screens that show a whole node."""

from __future__ import annotations

from nodeagent.model.decision import Tick
from nodeagent.model.nic import Scheduler
from nodeagent.model.nic_told import ClassTold, NicTold, told
from nodeagent.model.pod import Qos
from nodeagent.model.units import format_bps

SHOWN = {Qos.LS: "LS", Qos.MID: "MID", Qos.BATCH: "Batch"}


def nic_lines(tick: Tick) -> list[str]:
    """A line per NIC, then one for what could not be done; empty while no traffic is shaped."""
    found = told(tick)
    if found is None:
        return []
    width = max((len(nic.name) for nic in found.nics), default=0)
    lines = [f"{nic.name:<{width}}  {_line(nic)}" for nic in found.nics]
    if found.unclassified:
        lines.append(f"pods whose traffic passes for LS: {len(found.unclassified)}")
    return lines + [f"not done: {what}" for what in found.failed]


def state(nic: NicTold) -> str:
    """ "up, 10 Gbit/s", "down", "not there"."""
    if nic.up is None:
        return "not there"
    speed = "" if nic.link_bps is None else f", {format_bps(nic.link_bps)}"
    return f"up{speed}" if nic.up else "down"


def rate(each: ClassTold) -> str:
    """What the class sends now, or "?"."""
    return "?" if each.rate_bps is None else format_bps(each.rate_bps)


def _line(nic: NicTold) -> str:
    head = f"{nic.role}, {state(nic)}, {nic.scheduler}"
    if nic.egress is None:
        return f"{nic.role}, {state(nic)}, not shaped: {nic.why}"
    if all(each.bytes is None for each in nic.egress.classes):
        limits = ", ".join(f"{SHOWN[each.qos]} {format_bps(each.ceiling_bps)}" for each in nic.egress.classes)
        return f"{head}, only planned: at most {limits}"
    sent = ", ".join(f"{SHOWN[each.qos]} {rate(each)}" for each in nic.egress.classes)
    ceiling = next((each.ceiling_bps for each in nic.egress.classes if each.qos is Qos.BATCH), None)
    bound = "" if ceiling is None or nic.scheduler is Scheduler.OBSERVE else f" of {format_bps(ceiling)}"
    return f"{head}: {sent}{bound}"
