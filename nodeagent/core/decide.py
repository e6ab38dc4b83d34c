"""decide: the whole mind of the agent, as one pure function from what was seen to what shall be."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.core import (
    burst,
    capacity,
    directives,
    drift,
    dwell,
    foreign,
    interference,
    limit,
    nic,
    pages,
    rates,
    reach,
    rise,
    seats,
    share,
    surge,
    usage,
    waits,
    yields,
)
from nodeagent.core.rates import View
from nodeagent.core.scene import Scene, Sight
from nodeagent.core.usage import Usage
from nodeagent.detect import DETECTORS
from nodeagent.enforce import ENFORCERS
from nodeagent.model.decision import (
    BatchLimit,
    BusyPart,
    Decision,
    Drift,
    KnownUse,
    Memory,
    Signal,
    Spell,
)
from nodeagent.model.glob import any_glob_regex
from nodeagent.model.interference import Interference
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric, one_owner
from nodeagent.model.policy import CapacityPolicy, Policy
from nodeagent.model.snapshot import Snapshot

_OF_OTHERS = frozenset({Kind.CPU_WEIGHT, Kind.NET_CLASS})


class Thought(Struct, frozen=True, gc=False):
    """What a tick comes to before it is planned; an explanation is made of the same.

    `ceiling_cores` is what online work leaves, `orders` what directives ask, `roof` and `formula` (the policy
    that the offer follows) what they do, `last` the Batch limit in force until now, `scene` without
    places and traffic, `felt` what is remembered of interference.
    """

    sight: Sight
    signals: tuple[Signal, ...]
    spells: tuple[Spell, ...]
    busy: BusyPart
    known: dict[str, KnownUse]
    use: Usage
    within: reach.Reach | None
    window: tuple[tuple[float, float], ...]
    ceiling_cores: float | None
    orders: directives.Orders
    roof: directives.Roof
    formula: CapacityPolicy
    last: BatchLimit
    batch: BatchLimit
    why: str
    offered: capacity.Assessed
    scene: Scene
    interference: Interference
    felt: InterferenceMemory


def think(snapshot: Snapshot, policy: Policy, memory: Memory) -> Thought:
    """Signals, use, offer and the Batch limit with its shares."""
    view = rates.view(snapshot, memory.previous)
    waited = waits.add_up(view, memory.waits)
    sight = Sight(view, surge.overlaid(waited, memory.waits, snapshot.stalled, policy))
    signals, spells = _signals(sight, policy, memory)
    busy, known, use = usage.used(view, memory)
    within = reach.reach(view, known, memory)
    orders = directives.orders(snapshot)
    formula = directives.lending(orders, policy.capacity)
    window = _slide(view, use.told_cores, memory.online_cores, policy.cpu.window_s)
    most = rise.most_cores(window, snapshot.outside_cores, use.system_cores, snapshot.topology.cores)
    ground = _ground(view, signals, policy)
    ceiling = capacity.cpu_ceiling(view, use, formula, most, within)
    beyond = yields.ceiling_cores(view, ground.knobs, use, (formula, policy.cpu), within)
    if ceiling is not None and beyond is not None:
        ceiling = max(ceiling, beyond)
    last = _last(memory, snapshot)
    floor = min(policy.cpu.floor_cores, float(snapshot.topology.cores))
    roof = directives.roof(orders, last, snapshot, memory.previous, floor)
    capped = directives.capped(ceiling, roof)
    told, felt = interference.watch(view, ground.knobs, ground.scope, policy, memory.interference)
    hurt = limit.undirected(signals, told.directed)
    batch, why = limit.next_limit(view, hurt, policy.cpu, last, capped, use.cpu_sure)
    batch, why = directives.limited(batch, why, roof, ceiling)
    shrink = capacity.shrink(told, policy.interference)
    offered = capacity.assess(view, use, formula, memory, capacity.Bounds(batch, within, orders, shrink))
    ground = replace(ground, restraints={r.cgroup: r for r in told.restraints})
    scene = _shared(ground, policy, batch, why)
    scene = burst.bursting(scene, use, policy, memory.bursts)
    bounds = (window, ceiling, orders, roof, formula, last)
    now = (batch, why, offered, scene, told, felt)
    return Thought(sight, signals, spells, busy, known, use, within, *bounds, *now)


def decide(snapshot: Snapshot, policy: Policy, memory: Memory) -> tuple[Decision, Memory]:
    """One tick: signals, complete plan and capacity from `snapshot`, and the memory for the next tick."""
    t = think(snapshot, policy, memory)
    drifts, yielded = _drifting(snapshot, policy, memory)
    scene, memory = _arranged(t.scene, policy, memory, t.batch, yielded)
    decision = Decision(
        seq=snapshot.seq,
        signals=t.signals,
        plan=_plan(scene, policy),
        yielded=yielded,
        drifts=drifts,
        capacity=t.offered.capacity,
        batch_limit_cores=t.batch.cores,
        limit_why=t.why,
        placement=scene.placement,
        moves=scene.moves,
        shaping=scene.shaping,
        mode=directives.mode(t.orders, snapshot.mode),
        interference=t.interference,
    )
    return decision, replace(
        memory,
        previous=snapshot,
        waits=t.sight.waits,
        spells=t.spells,
        drifts=drifts,
        known=t.known,
        busy=t.busy,
        online=t.offered.history,
        online_cores=t.window,
        offer=t.offered.offer,
        batch=t.batch,
        lent=t.offered.capacity.lent,
        interference=t.felt,
    )


def _signals(sight: Sight, policy: Policy, memory: Memory) -> tuple[tuple[Signal, ...], tuple[Spell, ...]]:
    found = [c for detect in DETECTORS for c in detect(sight, policy)]
    return dwell.settle(
        sight.view.snapshot.at, found, memory.spells, policy.pressure.rise_s, policy.pressure.fall_s
    )


def _slide(
    view: View, online: float | None, window: tuple[tuple[float, float], ...], window_s: float
) -> tuple[tuple[float, float], ...]:
    """The online use of the last `window_s`; a tick in which it is unknown adds nothing."""
    now = view.snapshot.at
    kept = tuple((at, cores) for at, cores in window if now - at <= window_s)
    return kept if online is None else (*kept, (now, online))


def _last(memory: Memory, snapshot: Snapshot) -> BatchLimit:
    """After a restart the limit in force is what the last run wrote to the tiers: no jump."""
    if memory.batch.cores is not None:
        return memory.batch
    tiers = {Knob(Kind.CPU_QUOTA, tier) for tier in snapshot.tiers}
    written = [numeric(r.written) for r in snapshot.knobs if r.knob in tiers and r.written is not None]
    return BatchLimit(cores=sum(written) if written else None)


def _ground(view: View, signals: tuple[Signal, ...], policy: Policy) -> Scene:
    """What may be written, before it is known how much Batch may use."""
    knobs = {r.knob: r for r in view.snapshot.knobs}
    paths = {p.pod.spec.cgroup for p in view.pods} | set(view.snapshot.tiers) | _others(view, knobs)
    scope = frozenset(filter(any_glob_regex(policy.scope).fullmatch, paths))
    if kept_out := foreign.kept_out(view):
        scope = frozenset(path for path in scope if not foreign.inside(path, kept_out))
    return Scene(view, signals, knobs, scope, None, "")


def _shared(ground: Scene, policy: Policy, batch: BatchLimit, why: str) -> Scene:
    if batch.cores is None:
        return replace(ground, why=why)
    cores = limit.grid(batch.cores, ground.view.snapshot.topology.cores)
    floor, held = policy.cpu.floor_cores, ground.restraints
    shares = share.split(ground.view, cores, floor, ground.scope, ground.knobs, held)
    return replace(ground, shares=shares, why=why)


def _others(view: View, knobs: dict[Knob, KnobReading]) -> set[str]:
    """What is neither pod nor tier and may have a value of its own: containers and class directories."""
    inner = {c.cgroup for p in view.pods for c in p.pod.containers if Knob(Kind.CPU_QUOTA, c.cgroup) in knobs}
    return inner | {knob.target for knob in knobs if knob.kind in _OF_OTHERS}


def _drifting(
    snapshot: Snapshot, policy: Policy, memory: Memory
) -> tuple[tuple[Drift, ...], tuple[Knob, ...]]:
    drifts = drift.watch(snapshot.at, snapshot.knobs, memory.drifts, policy.drift)
    return drifts, drift.yielded(snapshot.at, drifts, policy.drift)


def _arranged(
    scene: Scene, policy: Policy, memory: Memory, batch: BatchLimit, yielded: tuple[Knob, ...]
) -> tuple[Scene, Memory]:
    """Where everything shall run, which pages have to get there first, and how its traffic is shaped."""
    scene, memory = seats.seated(scene, policy.numa, memory, batch.cores)
    shaping, nics = nic.shaped(scene.view.snapshot, policy, memory.nics)
    scene = replace(pages.settled(scene, yielded), shaping=shaping, nics=nics)
    return scene, replace(memory, bursts=scene.bursts, nics=nics)


def _plan(scene: Scene, policy: Policy) -> tuple[Setting, ...]:
    plan = one_owner(setting for enforce in ENFORCERS for setting in enforce(scene, policy))
    return tuple(plan[knob] for knob in sorted(plan))
