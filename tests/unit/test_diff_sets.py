"""diff() on sets: what cgroup v1 would refuse is never written, and what was there comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.diff import diff, fit, left_alone
from nodeagent.model.cpuset import CpuSet, union, within
from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Setting, Value
from tests.unit.world import Kernel

PATHS = ("a", "a/b", "a/c", "a/b/d", "a/b/e")
ALL = "0-15"
Tree = dict[str, str]


def _text(cpus: set[int]) -> str:
    return str(CpuSet(cpus))


some = st.sets(st.integers(0, 15), min_size=1).map(_text)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Sets that v1 accepts: none empty, each within its parent's."""
    sets: Tree = {}
    for path in PATHS:
        parent = sets.get(path.rpartition("/")[0], ALL)
        sets[path] = _text(draw(st.sets(st.sampled_from(sorted(CpuSet.parse(parent))), min_size=1)))
    return sets


def knob(path: str, kind: Kind = Kind.CPUS) -> Knob:
    return Knob(kind, path)


def kernel(sets: Tree, *, nested: bool = True, allowed: str = ALL) -> Kernel:
    readings = [
        KnobReading(knob(path), text, nested=nested, effective=text, allowed=allowed if nested else "")
        for path, text in sets.items()
    ]
    return Kernel({r.knob: r for r in readings})


def plan(sets: Tree) -> dict[Knob, Value]:
    return {knob(path): text for path, text in sets.items()}


def actual(of: Kernel) -> Tree:
    return {k.target: str(r.actual) for k, r in of.knobs.items()}


@settings(max_examples=400)
@given(trees(), trees())
def test_every_prefix_is_valid_and_a_plan_that_the_kernel_accepts_is_reached(
    before: Tree, wanted: Tree
) -> None:
    made = kernel(before)
    made.apply(plan(wanted))  # asserts validity at every write
    assert actual(made) == wanted
    assert made.apply(plan(wanted)) == ()


@settings(max_examples=400)
@given(trees(), st.lists(some, min_size=5, max_size=5), st.sets(st.sampled_from(PATHS)))
def test_a_plan_that_is_no_hierarchy_becomes_one_and_the_second_diff_is_empty(
    before: Tree, wanted: list[str], some_of: set[str]
) -> None:
    made = kernel(before)
    asked = plan({path: text for path, text in zip(PATHS, wanted, strict=True) if path in some_of})
    made.apply(asked)
    assert made.apply(asked) == ()
    untouched = {path: text for path, text in before.items() if path not in some_of}
    assert untouched.items() <= actual(made).items()


@settings(max_examples=300)
@given(trees(), st.lists(trees(), max_size=4), st.sets(st.sampled_from(PATHS)))
def test_stopping_restores_every_set(before: Tree, plans: list[Tree], some_of: set[str]) -> None:
    made = kernel(before)
    for wanted in plans:
        made.apply(plan({path: wanted[path] for path in some_of}))
    made.apply({})
    assert actual(made) == before
    assert not any(reading.held for reading in made.knobs.values())


@given(trees(), trees(), trees())
def test_a_set_that_somebody_else_wrote_is_left_and_told(before: Tree, wanted: Tree, theirs: Tree) -> None:
    made = kernel(before)
    made.apply(plan(wanted))
    found = [replace(r, actual=theirs[k.target]) for k, r in made.knobs.items()]
    foreign = {r.knob for r in found if r.held and r.actual not in (r.written, r.original)}
    assert not foreign & {change.knob for change in diff({}, found)}
    assert foreign == {reading.knob for reading in left_alone({}, found)}


@settings(max_examples=300)
@given(trees(), trees())
def test_no_set_is_written_more_than_twice_and_a_leaf_only_once(before: Tree, wanted: Tree) -> None:
    made = kernel(before)
    changes = made.apply(plan(wanted))
    for path in PATHS:
        own = [change for change in changes if change.knob.target == path]
        changed = before[path] != wanted[path]
        assert len(own) in ((1, 2) if changed and path in ("a", "a/b") else (1,))
        if len(own) == 2:
            assert own[0].new == own[1].old == union(before[path], wanted[path])
            assert not own[0].gives_back


@settings(max_examples=300)
@given(trees(), trees(), st.sets(st.sampled_from(PATHS)))
def test_on_v2_any_set_is_reached_and_nothing_is_ever_narrower_than_before_and_after(
    before: Tree, wanted: Tree, inheriting: set[str]
) -> None:
    before = before | dict.fromkeys(inheriting, "")
    made = kernel(before, nested=False)
    held = {path: _effective(before, path) for path in PATHS}
    last = {path: _effective(wanted, path) for path in PATHS}
    now = dict(before)
    for change in made.apply(plan(wanted)):
        now[change.knob.target] = str(change.new)
        for path in PATHS:
            kept = CpuSet.parse(held[path]) & CpuSet.parse(last[path])
            assert kept <= CpuSet.parse(_effective(now, path)), change
    assert now == wanted == actual(made)
    made.apply({})
    assert actual(made) == before


def _effective(sets: Tree, path: str) -> str:
    """update_cpumasks_hier() of Linux kernel/cgroup/cpuset.c: nothing in common is as around."""
    parent = path.rpartition("/")[0]
    around = _effective(sets, parent) if parent else ALL
    return str(CpuSet(CpuSet.parse(sets[path]) & CpuSet.parse(around))) or around


def test_moving_a_chain_from_one_cpu_to_another_goes_by_way_of_the_union() -> None:
    made = kernel({"a": "0", "a/b": "0", "a/b/d": "0"})
    changes = made.apply(plan({"a": "1", "a/b": "1", "a/b/d": "1"}))
    assert [(c.knob.target, c.old, c.new) for c in changes] == [
        ("a", "0", "0-1"),
        ("a/b", "0", "0-1"),
        ("a/b/d", "0", "1"),
        ("a/b", "0-1", "1"),
        ("a", "0-1", "1"),
    ]


def test_a_set_without_a_cpu_in_common_with_the_one_around_it_becomes_that() -> None:
    made = kernel({"a": "0-1", "a/b": "0-1"})
    made.apply(plan({"a/b": "4-5"}))
    assert actual(made) == {"a": "0-1", "a/b": "0-1"}
    made.apply(plan({"a/b": "1-5"}))
    assert actual(made) == {"a": "0-1", "a/b": "1"}


def test_what_is_inside_and_not_ours_holds_a_set_up() -> None:
    made = kernel({"a": "0-3", "a/b": "0-3", "a/b/d": "2"})
    made.apply(plan({"a": "0-1", "a/b": "0"}))
    assert actual(made) == {"a": "0-2", "a/b": "0,2", "a/b/d": "2"}


def test_a_cgroup_that_was_made_with_our_set_gets_what_it_would_have_had_without_us() -> None:
    made = kernel({"a": "0-7"})
    made.apply(plan({"a": "0-1"}))
    for path in ("a/b", "a/b/d"):
        made.knobs[knob(path)] = KnobReading(knob(path), "0-1", nested=True, allowed=ALL)
    (kept, narrowed) = made.apply(plan({"a": "0-1", "a/b": "0-1", "a/b/d": "1"}))
    assert (kept.new, kept.inherited) == ("0-1", "0-7")
    assert (narrowed.new, narrowed.inherited) == ("1", "0-7")
    made.apply({})
    assert actual(made) == {"a": "0-7", "a/b": "0-7", "a/b/d": "0-7"}


@pytest.mark.parametrize("wanted", ["0", "0-1"])
def test_a_set_that_was_there_before_us_is_its_own_original(wanted: str) -> None:
    made = kernel({"a": "0-7", "a/b": "0-1"})
    for _ in range(2):
        made.apply(plan({"a": "0-1", "a/b": wanted}))
    made.apply({})
    assert actual(made) == {"a": "0-7", "a/b": "0-1"}


@given(some, some, some)
def test_a_fitted_set_is_online_and_never_empty(there: str, asked: str, allowed: str) -> None:
    reading = KnobReading(knob("a"), there, nested=True, allowed=allowed)
    fitted = str(fit(reading, asked))
    assert fitted
    assert fitted == there or within(fitted, allowed)
    assert fit(KnobReading(knob("a"), there), asked) == asked


def test_on_v1_pages_are_told_to_follow_before_they_have_to() -> None:
    mems, follow = knob("a/b", Kind.MEMS), knob("a/b", Kind.MIGRATE)
    readings = [
        KnobReading(mems, "0", nested=True, allowed="0-1"),
        KnobReading(follow, 0.0, high=1.0),
    ]
    wanted = {mems: Setting(mems, "1", "t", ""), follow: Setting(follow, 1.0, "t", "")}
    there = diff(wanted, readings)
    assert [change.knob for change in there] == [follow, mems]
    held = [
        replace(reading, actual=change.new, original=change.old, written=change.new)
        for reading, change in zip(reversed(readings), there, strict=True)
    ]
    back = diff({}, held)
    assert [change.knob for change in back] == [mems, follow]
    assert all(change.gives_back for change in back)


def test_a_number_for_a_set_and_a_set_for_a_number_are_bugs() -> None:
    quota = knob("a", Kind.CPU_QUOTA)
    with pytest.raises(TypeError, match="not a set"):
        diff({knob("a"): Setting(knob("a"), 1.0, "t", "")}, [KnobReading(knob("a"), "0", nested=True)])
    with pytest.raises(TypeError, match="not a number"):
        diff({quota: Setting(quota, "0-1", "t", "")}, [KnobReading(quota, 1.0)])


def test_a_change_keeps_who_wanted_it_and_why_in_both_halves() -> None:
    readings = [KnobReading(knob("a"), "0", nested=True), KnobReading(knob("a/b"), "0", nested=True)]
    wanted = {k: Setting(k, "1", "placement", "moved") for k in (knob("a"), knob("a/b"))}
    changes = diff(wanted, readings)
    assert changes[0] == Change(knob("a"), "0", "0-1", "moved", "placement")
    assert changes[-1] == Change(knob("a"), "0-1", "1", "moved", "placement")
