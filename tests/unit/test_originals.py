"""The ledger of originals: durable, never wrong after a crash, never a crash itself."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.cpuset import union
from nodeagent.model.errors import Failed
from nodeagent.model.plan import Change, Held, Kind, Knob, Outcome, Value
from nodeagent.originals import COMPACT_BYTES, NAME, Originals

BOOT = "2c5f0a66-93a5-4d0b-a9c8-6a8f4a1d7f10"
A, B, C = (Knob(Kind.CPU_QUOTA, "a"), Knob(Kind.CPU_WEIGHT, "a"), Knob(Kind.CPU_QUOTA, "a/\udcff b"))
D = Knob(Kind.CPUS, "d")
INODES = {"a": 11, "a/\udcff b": 12, "d": 13}


def inode_of(knob: Knob) -> int | None:
    return INODES.get(knob.target)


def change(knob: Knob, old: Value, new: Value, *, gives_back: bool = False) -> Change:
    return Change(knob, old, new, "test", "test", gives_back)


def went(done: Change, found: Value | None = None, error: str = "") -> Outcome:
    return Outcome(done, done.new if found is None and not error else found, error)


def test_a_held_knob_survives_as_it_was(tmp_path: Path) -> None:
    first = Originals(str(tmp_path / "state"), BOOT)
    changes = [change(A, math.inf, 0.5), change(B, 0.0, 2.0), change(C, 1 / 3, 0.1)]
    assert first.intend(changes, inode_of) == tuple(changes)
    first.confirm([went(changes[0]), went(changes[2])])
    again = Originals(str(tmp_path / "state"), BOOT)
    assert again.held == first.held
    assert dict(again.held) == {
        A: Held(A, 11, math.inf, 0.5, None),
        B: Held(B, 11, 0.0, None, 2.0),
        C: Held(C, 12, 1 / 3, 0.1, None),
    }
    assert again.warnings == []


def test_originals_are_in_the_file_before_intend_returns_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    originals = Originals(str(state), BOOT)
    originals.intend([change(A, math.inf, 0.5)], inode_of)
    record = (state / NAME).read_bytes().splitlines()[-1].partition(b" ")[2]
    assert json.loads(record) == ["cpu.quota", "a", 11, math.inf, None, 0.5]
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / NAME).stat().st_mode & 0o777 == 0o600


def test_what_was_given_back_or_forgotten_is_not_held(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    originals.intend([change(A, math.inf, 0.5), change(B, 1.0, 0.0)], inode_of)
    back = change(A, 0.5, math.inf, gives_back=True)
    originals.intend([back], inode_of)
    originals.confirm([went(back)])
    assert set(originals.held) == {B}
    originals.forget([A, B, C])
    assert dict(Originals(str(tmp_path), BOOT).held) == {}


def test_a_first_write_that_the_kernel_refused_leaves_nothing_held(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    refused = change(A, 2.0, 0.5)
    originals.intend([refused], inode_of)
    originals.confirm([went(refused, 2.0, "EINVAL")])
    assert dict(originals.held) == {}


def test_a_later_refusal_clears_what_was_pending_and_an_unreadable_knob_keeps_it(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    first, second = change(A, 2.0, 0.5), change(A, 0.5, 0.25)
    originals.intend([first], inode_of)
    originals.confirm([went(first)])
    originals.intend([second], inode_of)
    originals.confirm([Outcome(second, None, "gone")])
    assert originals.held[A] == Held(A, 11, 2.0, 0.5, 0.25)
    originals.confirm([went(second, 0.5, "EINVAL")])
    assert originals.held[A] == Held(A, 11, 2.0, 0.5, None)


def test_a_cgroup_that_is_gone_is_not_noted_and_one_made_again_starts_anew(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    gone = change(Knob(Kind.CPU_QUOTA, "gone"), 1.0, 0.5)
    assert originals.intend([gone, change(A, 2.0, 0.5)], inode_of) == (change(A, 2.0, 0.5),)
    originals.intend([change(A, 4.0, 0.5)], lambda _: 99)
    assert dict(originals.held) == {A: Held(A, 99, 4.0, None, 0.5)}


def test_a_value_of_another_writer_does_not_become_ours_by_intending_to_replace_it(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    first = change(A, 2.0, 0.5)
    originals.intend([first], inode_of)
    originals.confirm([went(first)])
    originals.intend([change(A, 7.0, 0.25)], inode_of)
    assert not originals.held[A].explains(7.0)
    assert originals.held[A].explains(0.25)


def test_another_boot_starts_empty(tmp_path: Path) -> None:
    Originals(str(tmp_path), BOOT).intend([change(A, math.inf, 0.5)], inode_of)
    assert dict(Originals(str(tmp_path), "another boot").held) == {}
    assert dict(Originals(str(tmp_path), BOOT).held) == {}


def test_the_file_is_compacted_when_it_has_grown_and_when_it_is_opened(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), BOOT)
    knobs = [Knob(Kind.CPU_QUOTA, f"{'p' * 100}/{n}") for n in range(500)]
    sizes = []
    for turn in range(24):
        originals.intend([change(knob, 1.0, 0.5 + turn / 100) for knob in knobs], lambda _: 7)
        sizes.append((tmp_path / NAME).stat().st_size)
    assert max(sizes) < COMPACT_BYTES + 200_000
    assert sorted(sizes) != sizes
    again = Originals(str(tmp_path), BOOT)
    assert again.held == originals.held
    assert (tmp_path / NAME).stat().st_size < 200 * len(knobs)
    assert sorted(p.name for p in tmp_path.iterdir()) == [NAME]


Turn = dict[Knob, Value]
Watch = Callable[[dict[Knob, Value]], None]
FIRST: Turn = {A: math.inf, B: 0.0, C: 0.3, D: "0-3"}
VALUES: dict[Knob, list[Value]] = {
    A: [math.inf, 0.5, 0.25],
    B: [0.0, 1.0, 2.0, 0.5],
    C: [0.3, 0.1, math.inf],
    D: ["0-3", "2-3", "3-5", "8"],
}
TURNS = st.lists(
    st.fixed_dictionaries({}, optional={knob: st.sampled_from(v) for knob, v in VALUES.items()}), max_size=5
)


class Kernel:
    """Two quotas, a set, and a weight that leaves idle in two steps, as the real one does."""

    def __init__(self) -> None:
        self.values = dict(FIRST)

    def write(self, done: Change, watch: Watch) -> None:
        if done.knob.kind is Kind.CPU_WEIGHT and self.values[done.knob] == 0.0:
            self.values[done.knob] = 1.0
            watch(dict(self.values))
        self.values[done.knob] = done.new
        watch(dict(self.values))


def parts(knob: Knob, old: Value, new: Value, gives_back: bool) -> list[Change]:
    """A set goes by way of the union of both."""
    whole = change(knob, old, new, gives_back=gives_back)
    if not isinstance(old, str) or not isinstance(new, str):
        return [whole]
    via = union(old, new)
    return [whole] if via in (old, new) else [change(knob, old, via), replace(whole, old=via)]


def life(state: Path, kernel: Kernel, turns: list[Turn], watch: Watch) -> None:
    """Turns of read, intend, apply, confirm; `watch` is called at every instant with the kernel's values."""
    originals = Originals(str(state), BOOT)
    for turn in turns:
        changes = [
            part
            for knob, new in turn.items()
            if new != kernel.values[knob]
            for part in parts(knob, kernel.values[knob], new, new == FIRST[knob] and knob in originals.held)
        ]
        watch(dict(kernel.values))
        noted = originals.intend(changes, inode_of)
        watch(dict(kernel.values))
        for done in noted:
            kernel.write(done, watch)
        originals.confirm([went(done) for done in noted])
        watch(dict(kernel.values))
    originals.close()


def assert_understood(state: Path, values: dict[Knob, Value]) -> None:
    """Whoever opens the ledger now knows every value that is not the first one, and its original."""
    held = Originals(str(state), BOOT).held
    for knob, value in values.items():
        if knob in held:
            assert held[knob].original == FIRST[knob]
            assert held[knob].explains(value), (knob, value, held[knob])
        else:
            assert value == FIRST[knob]


@given(TURNS)
def test_a_kill_at_any_instant_leaves_only_values_that_the_ledger_explains(
    tmp_path_factory: pytest.TempPathFactory, turns: list[Turn]
) -> None:
    state, copy = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("copy")

    def killed_here(values: dict[Knob, Value]) -> None:
        (copy / NAME).write_bytes((state / NAME).read_bytes())
        assert_understood(copy, values)

    life(state, Kernel(), turns, killed_here)


@given(st.lists(st.tuples(TURNS, st.integers(0, 25)), max_size=4))
def test_a_life_after_each_kill_goes_on_from_what_it_finds(
    tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[list[Turn], int]]
) -> None:
    class Killed(Exception):
        pass

    state, copy, kernel = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("copy"), Kernel()
    for turns, instants in lives:
        left = [instants]

        def watch(values: dict[Knob, Value], left: list[int] = left) -> None:
            (copy / NAME).write_bytes((state / NAME).read_bytes())
            assert_understood(copy, values)
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        with contextlib.suppress(Killed):
            life(state, kernel, turns, watch)


def test_a_file_cut_at_any_byte_of_the_latest_append_is_understood(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    copy.mkdir()
    before = [b""]
    cuts = 0

    def killed_here(values: dict[Knob, Value]) -> None:
        nonlocal cuts
        now = (state / NAME).read_bytes()
        if before[0] and now.startswith(before[0]):
            for size in range(len(before[0]), len(now) + 1):
                (copy / NAME).write_bytes(now[:size])
                assert_understood(copy, values_before[0] if size < len(now) else values)
                cuts += 1
        before[0], values_before[0] = now, values

    values_before: list[dict[Knob, Value]] = [dict(FIRST)]
    turns: list[Turn] = [
        {A: 0.5, B: 2.0, C: 0.1},
        {A: 0.25, B: 0.0, D: "3-5"},
        {B: 0.5, C: 0.3},
        {A: math.inf, B: 0.0, D: "0-3"},
    ]
    life(state, Kernel(), turns, killed_here)
    assert cuts > 500


def test_a_file_cut_at_any_byte_opens_without_a_crash_and_tells(tmp_path: Path) -> None:
    life(tmp_path / "state", Kernel(), [{A: 0.5, B: 2.0}, {A: 0.25}], lambda _: None)
    whole = (tmp_path / "state" / NAME).read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    ends = {n + 1 for n, byte in enumerate(whole) if byte == ord("\n")}
    for size in range(len(whole)):
        (copy / NAME).write_bytes(whole[:size])
        opened = Originals(str(copy), BOOT)
        opened.close()
        assert bool(opened.warnings) == (size not in ends and size != 0), size
        for aside in copy.glob("originals.corrupt-*"):
            aside.unlink()


@given(st.binary(max_size=400))
def test_any_file_opens_and_what_is_no_ledger_is_kept_aside(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    state = tmp_path_factory.mktemp("state")
    (state / NAME).write_bytes(data)
    opened = Originals(str(state), BOOT)
    opened.close()
    assert dict(opened.held) == {}
    assert (state / "originals.corrupt-1").exists() == bool(data)
    if data:
        assert (state / "originals.corrupt-1").read_bytes() == data
        assert len(opened.warnings) == 1


@given(st.data())
def test_one_damaged_line_loses_no_other(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    state = tmp_path_factory.mktemp("state")
    Originals(str(state), BOOT).intend([change(k, FIRST[k], 0.5) for k in FIRST], inode_of)
    lines = (state / NAME).read_bytes().splitlines(keepends=True)
    hit = data.draw(st.integers(1, 3))
    at = data.draw(st.integers(0, len(lines[hit]) - 2))
    lines[hit] = (
        lines[hit][:at] + bytes([lines[hit][at] ^ data.draw(st.integers(1, 127))]) + lines[hit][at + 1 :]
    )
    (state / NAME).write_bytes(b"".join(lines))
    opened = Originals(str(state), BOOT)
    opened.close()
    assert len(opened.held) == 2
    assert "corrupt-1" in opened.warnings[0]
    assert (state / "originals.corrupt-1").read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    "fields",
    [
        ["cpu.quota", "a", 1, None, 1.0, None],
        ["cpu.quota", "a", 1, math.nan, None, None],
        ["cpu.quota", "a", 1, -1.0, None, None],
        ["cpu.quota", "a", 1, 1.0, "x", None],
        ["cpu.quota", "a", 1, 1.0],
        ["no.such.kind", "a", 1, 1.0, None, None],
        ["no.such.kind", "a"],
        {"cpu.quota": 1},
    ],
)
def test_a_whole_line_that_makes_no_sense_is_left_out(tmp_path: Path, fields: object) -> None:
    import zlib

    Originals(str(tmp_path), BOOT).close()
    text = json.dumps(fields).encode()
    with open(tmp_path / NAME, "ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))
    opened = Originals(str(tmp_path), BOOT)
    assert dict(opened.held) == {}
    assert len(opened.warnings) == 1


def test_a_directory_in_place_of_the_ledger_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    opened = Originals(str(tmp_path), BOOT)
    assert (tmp_path / "originals.corrupt-1").is_dir()
    opened.intend([change(A, math.inf, 0.5)], inode_of)
    assert set(Originals(str(tmp_path), BOOT).held) == {A}


def test_a_state_directory_that_cannot_be_made_fails_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match=str(tmp_path)) as failed:
        Originals(str(tmp_path / "file" / "state"), BOOT)
    assert failed.value.hint


FULL = f"""
import math, resource, sys
sys.path[:0] = {sys.path!r}
from nodeagent.model.cpuset import union
from nodeagent.model.errors import Failed
from nodeagent.model.plan import Change, Kind, Knob, Outcome
from nodeagent.originals import NAME, Originals
state = sys.argv[1]
a, b = Knob(Kind.CPU_QUOTA, "a"), Knob(Kind.CPU_QUOTA, "b")
originals = Originals(state, "boot")
first = Change(a, math.inf, 0.5, "")
originals.intend([first], lambda _: 1)
originals.confirm([Outcome(first, 0.5)])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
refused = 0
for _ in range(3):
    try:
        originals.intend([Change(a, 0.5, 0.25, ""), Change(b, 2.0, 1.0, "")], lambda _: 1)
    except Failed as failed:
        assert failed.hint and b not in originals.held
        refused += 1
assert refused == 3 and originals.held[a].pending == 0.25
assert len(originals.warnings) <= 1, originals.warnings
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
originals.confirm([Outcome(Change(a, 0.5, 0.25, ""), 0.25)])
originals.intend([Change(b, 2.0, 1.0, "")], lambda _: 1)
again = Originals(state, "boot")
assert again.held == originals.held and set(again.held) == {{a, b}}, again.held
assert again.warnings == []
"""


@pytest.mark.parametrize("room_bytes", [0, 10, 60, 130], ids=lambda room: f"{room} bytes")
def test_a_full_disk_refuses_new_knobs_warns_once_for_held_ones_and_is_got_over(
    tmp_path: Path, room_bytes: int
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), str(room_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


HALF = f"""
import math, resource, sys
sys.path[:0] = {sys.path!r}
from nodeagent.model.plan import Change, Kind, Knob
from nodeagent.originals import NAME, Originals
state = sys.argv[1]
a, b = Knob(Kind.CPU_QUOTA, "a"), Knob(Kind.CPU_QUOTA, "b")
originals = Originals(state, "boot")
for _ in range(5):
    originals.intend([Change(a, math.inf, 0.5, "")], lambda _: 1)
size = len(open(f"{{state}}/{{NAME}}", "rb").read())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
originals.intend([Change(a, 0.5, 0.25, "")], lambda _: 1)
assert len(originals.warnings) == 1, originals.warnings
assert len(open(f"{{state}}/{{NAME}}", "rb").read()) == size + 10
originals.intend([Change(b, 2.0, 1.0, "")], lambda _: 1)
again = Originals(state, "boot")
assert again.held == originals.held and set(again.held) == {{a, b}}, again.held
assert again.held[a].pending == 0.25
assert again.warnings == [], again.warnings
"""


def test_nothing_is_added_behind_half_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HALF, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
