"""What directives do to one tick: a mode, a roof for the offer and for Batch's limit, another formula.

Invariant: only a lend ever gives more, and no more than reservations and what is used now leave; while an
input is not known it gives nothing more. All others only take.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.model.capacity import Amount, Term
from nodeagent.model.decision import BatchLimit, OnlineHistory
from nodeagent.model.directive import DirectiveStatus, Hold, Lend, Recall, SetMode, State
from nodeagent.model.policy import CapacityPolicy
from nodeagent.model.settings import Mode
from nodeagent.model.snapshot import Snapshot

AT_ONCE_RATIO_PER_S = 1e6
BY_LEND = {"ceiling_ratio": "all of it", "online_peak": "what is used now"}


class Orders(Struct, frozen=True, gc=False):
    """The directives in force, one of a kind at most."""

    mode: DirectiveStatus | None = None
    hold: DirectiveStatus | None = None
    lend: DirectiveStatus | None = None
    recall: DirectiveStatus | None = None

    @property
    def withdrawn(self) -> str:
        """Why nothing is offered, "" without a recall."""
        return "" if self.recall is None else f"recalled by {named(self.recall)}"


NO_ORDERS = Orders()


class Roof(Struct, frozen=True, gc=False):
    """Batch's limit is at most `cores` (inf without a directive), and why."""

    cores: float = math.inf
    why: str = ""


def orders(snapshot: Snapshot) -> Orders:
    """What is in force now; a recall ends a lend."""
    found: dict[type, DirectiveStatus] = {}
    for status in snapshot.directives:
        if status.state is State.IN_FORCE and snapshot.unix < status.ends_unix:
            found[type(status.directive.order)] = status
    recall = found.get(Recall)
    return Orders(found.get(SetMode), found.get(Hold), None if recall else found.get(Lend), recall)


def named(status: DirectiveStatus) -> str:
    """A directive in a reason: its id and who asked for it."""
    return f"directive {status.directive.id} of {status.issuer}"


def mode(now: Orders, configured: Mode | None) -> Mode | None:
    """What this tick's writes obey: a directive makes an enforcing agent observe, never the other way."""
    order = now.mode.directive.order if now.mode is not None else None
    observing = isinstance(order, SetMode) and order.mode is Mode.OBSERVE
    return Mode.OBSERVE if configured is Mode.ENFORCE and observing else configured


def lending(now: Orders, policy: CapacityPolicy) -> CapacityPolicy:
    """With a lend: neither a ceiling nor a slow way up. Reservations are as ever."""
    if now.lend is None:
        return policy
    return replace(
        policy, cpu_ceiling_ratio=1.0, memory_ceiling_ratio=1.0, raise_ratio_per_s=AT_ONCE_RATIO_PER_S
    )


def remembered(now: Orders, history: OnlineHistory) -> OnlineHistory:
    """The past that counts in the formula: none with a lend."""
    return history if now.lend is None else OnlineHistory()


def roof(
    now: Orders, last: BatchLimit, snapshot: Snapshot, before: Snapshot | None, floor_cores: float
) -> Roof:
    """The most that Batch may have in this tick, never below its floor; of two the lower."""
    found = []
    order = now.hold.directive.order if now.hold is not None else None
    if now.hold is not None and isinstance(order, Hold) and order.cpu_cores is not None:
        why = f"hold at {order.cpu_cores:g} cores: {named(now.hold)}"
        found.append(Roof(max(floor_cores, order.cpu_cores), why))
    order = now.recall.directive.order if now.recall is not None else None
    if now.recall is not None and isinstance(order, Recall):
        since = max(now.recall.taken_unix, -math.inf if before is None else before.unix)
        start = snapshot.unix if before is None else since
        cores = _falling(last.cores, start, snapshot.unix, order.deadline_unix, floor_cores)
        by = datetime.fromtimestamp(max(0.0, order.deadline_unix), UTC)
        found.append(Roof(cores, f"recall by {by:%Y-%m-%d %H:%M:%S} UTC: {named(now.recall)}"))
    return min(found, key=lambda each: each.cores, default=Roof())


def capped(ceiling_cores: float | None, above: Roof) -> float | None:
    """What online work leaves, and no more than the roof; None stays not known."""
    return None if ceiling_cores is None else min(ceiling_cores, above.cores)


def limited(batch: BatchLimit, why: str, above: Roof, ceiling_cores: float | None) -> tuple[BatchLimit, str]:
    """The limit within the roof, and why; `ceiling_cores` is what it would be without."""
    if batch.cores is None:  # not limited yet, as what online work leaves is not known
        return (batch, why) if math.isinf(above.cores) else (replace(batch, cores=above.cores), above.why)
    if batch.cores < above.cores:
        return batch, why
    if batch.cores == above.cores and ceiling_cores is not None and ceiling_cores <= above.cores:
        return batch, why
    return replace(batch, cores=above.cores), above.why


def held(now: Orders, cpu: Amount, memory: Amount) -> tuple[Amount, Amount]:
    """(CPU, memory) of the node, within a hold, and with the terms that name the directive."""
    if now.lend is not None:
        cpu, memory = _lent(cpu, now.lend), _lent(memory, now.lend)
    order = now.hold.directive.order if now.hold is not None else None
    if now.hold is not None and isinstance(order, Hold):
        source = named(now.hold)
        return _within(cpu, order.cpu_cores, source), _within(memory, order.memory_bytes, source)
    return cpu, memory


def _within(amount: Amount, most: float | None, source: str) -> Amount:
    if most is None:
        return amount
    terms = (*amount.terms, Term("hold", float(most), source, 0.0))
    return Amount(amount.available, min(amount.computed, float(most)), terms)


def _lent(amount: Amount, lend: DirectiveStatus) -> Amount:
    """The terms that a lend has replaced say so."""
    terms = tuple(
        replace(term, source=f"{BY_LEND[term.name]}: {named(lend)}") if term.name in BY_LEND else term
        for term in amount.terms
    )
    return Amount(amount.available, amount.computed, terms)


def _falling(cores: float | None, since: float, now: float, deadline: float, floor_cores: float) -> float:
    """From what it was on a straight line to the floor; it never rises, whatever the clock does."""
    if now >= deadline:
        return floor_cores
    if cores is None:
        return math.inf
    if since >= now or since >= deadline:
        return cores
    return floor_cores + max(0.0, cores - floor_cores) * (deadline - now) / (deadline - since)
