"""A replay's answer for eyes and for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import msgspec

from nodeagent.model.interference_told import story
from nodeagent.replay.answer import Otherwise, Replayed, Said, Stretch

SHOWN = 20  # lines of one kind; the rest is counted
OPEN_LOOP = (
    "open loop: the readings are as recorded, they do not react to this policy; trust the direction, "
    "not the size"
)


def as_dict(replayed: Replayed) -> dict[str, object]:
    """Plain values for JSON, with `ok` and, for another policy, the `note` that limits what it proves."""
    plain = cast("dict[str, object]", msgspec.to_builtins(replayed))
    note = {"note": OPEN_LOOP} if replayed.otherwise is not None else {}
    return {"ok": replayed.ok, **plain, **note}


def as_json(replayed: Replayed) -> str:
    """`as_dict` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(as_dict(replayed))).decode()


def as_text(replayed: Replayed) -> str:
    """The same in lines, without a newline at the end."""
    span = f"{_time(replayed.first_unix)} to {_time(replayed.last_unix)}"
    what = f"{_count(replayed.ticks, 'tick')} in {_count(replayed.segments, 'segment')}, {span}"
    lines = [f"warning: {warning}" for warning in replayed.warnings]
    if replayed.otherwise is not None:
        return "\n".join([*lines, what, *_otherwise(replayed.otherwise), *_episodes(replayed)])
    if replayed.ok:
        return "\n".join([*lines, what, "every decision is the same as recorded", *_episodes(replayed)])
    lines += [what, f"{_count(replayed.differing_count, 'tick')} decided otherwise than recorded:"]
    lines += [
        f"  tick {d.seq} at {_time(d.unix)} ({d.segment}): {d.what}" for d in replayed.differing[:SHOWN]
    ]
    return "\n".join([*lines, *_more(replayed.differing_count), *_episodes(replayed)])


def _episodes(replayed: Replayed) -> list[str]:
    """What was recorded of interference, a line each."""
    if not replayed.episode_count:
        return []
    told = [f"  {_time(each.opened_unix)}  {story(each, UTC)}" for each in replayed.episodes[:SHOWN]]
    count = _count(replayed.episode_count, "episode")
    return ["", f"{count} of interference recorded (times in UTC):", *told, *_more(replayed.episode_count)]


def _otherwise(other: Otherwise) -> list[str]:
    lines = [f"{_count(other.ticks, 'tick')} would have been decided otherwise"]
    if other.stretches:
        lines += [
            "",
            f"  {'ticks':>15}  {'from':<23}  {'for':>8}  {'Batch cores then':>16}  {'now':>12}  LS pressure",
            *(_stretch(stretch) for stretch in other.stretches[:SHOWN]),
            *_more(other.stretch_count),
        ]
    rows = (
        ("given to Batch, core-s", other.then.batch_core_s, other.now.batch_core_s),
        ("LS under pressure, s", other.then.ls_pressure_s, other.now.ls_pressure_s),
        ("offered, core-s", other.then.offered_core_s, other.now.offered_core_s),
    )
    lines += ["", f"  {f'over {other.seconds:.0f} s':<24}{'then':>12}{'now':>12}{'change':>12}"]
    lines += [f"  {name:<24}{then:>12.1f}{now:>12.1f}{now - then:>+12.1f}" for name, then, now in rows]
    return [*lines, "", OPEN_LOOP]


def _stretch(stretch: Stretch) -> str:
    ticks = f"{stretch.first_seq}..{stretch.last_seq}"
    lasted = f"{stretch.last_unix - stretch.first_unix:.0f} s"
    then, now = _cores(stretch.then), _cores(stretch.now)
    hurt = f"{_names(stretch.then)} -> {_names(stretch.now)}"
    return f"  {ticks:>15}  {_time(stretch.first_unix):<23}  {lasted:>8}  {then:>16}  {now:>12}  {hurt}"


def _cores(said: Said) -> str:
    if said.low_cores is None or said.high_cores is None:
        return "not known"
    low, high = f"{said.low_cores:.2f}", f"{said.high_cores:.2f}"
    return low if low == high else f"{low}..{high}"


def _names(said: Said) -> str:
    first = ", ".join(said.hurt[:3])
    return f"{first} +{len(said.hurt) - 3}" if len(said.hurt) > 3 else first or "none"


def _more(count: int) -> list[str]:
    return [f"  … and {count - SHOWN} more"] if count > SHOWN else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _time(unix: float) -> str:
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a clock that was never set, or a forged journal
        return f"{unix} s"
