"""The store of directives: durable before it answers, repeats harmless, no clock makes a lease longer."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.directives import MAGIC, Directives, Now
from nodeagent.model.directive import (
    Code,
    Directive,
    End,
    Hold,
    Lend,
    Order,
    Recall,
    Refused,
    SetMode,
    State,
    Taken,
)
from nodeagent.model.settings import DirectiveSettings, Mode

BEGIN = Now(1_800_000_000.0, 5_000.0)
law = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


class Clock:
    """Both clocks, which the test moves."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> Now:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now = Now(self.now.unix + seconds, self.now.boot_s + seconds)


@contextmanager
def store(
    home: Path, clock: Clock, boot: str = "boot-1", *, enforcing: bool = True, **how: float
) -> Iterator[Directives]:
    given = DirectiveSettings(**how)  # type: ignore[arg-type]
    with closing(Directives(str(home), boot, given, enforcing=enforcing, clock=clock)) as opened:
        yield opened


def directive(id: str, order: Order | None = None, lease_s: float = 60.0) -> Directive:  # noqa: A002
    lease_s = 0.0 if isinstance(order, End) else lease_s
    return Directive(id=id, lease_s=lease_s, reason="test", order=order or Hold(cpu_cores=2.0))


def refused(answer: Taken | Refused) -> tuple[Code, str]:
    assert isinstance(answer, Refused)
    return answer.code, answer.message


def states(directives: Directives) -> dict[str, State]:
    return {status.directive.id: status.state for status in directives.known()}


def in_force(directives: Directives) -> set[str]:
    return {s.directive.id for s in directives.news()[0] if s.state is State.IN_FORCE}


def test_what_was_taken_is_in_force_until_its_lease_is_over(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        answer = directives.take(directive("a"), "uid:0")
        assert isinstance(answer, Taken) and not answer.already
        assert (answer.status.taken_unix, answer.status.ends_unix) == (BEGIN.unix, BEGIN.unix + 60.0)
        assert answer.status.issuer == "uid:0"
        assert directives.news() == ((answer.status,), ())
        clock.pass_s(59.9)
        assert in_force(directives) == {"a"}
        clock.pass_s(0.1)
        over = replace(answer.status, state=State.EXPIRED)
        assert directives.news() == ((over,), ())
        assert directives.news() == ((), ()), "the end is told once"
        assert directives.known() == (over,)
    assert stat.S_IMODE((tmp_path / "directives").stat().st_mode) == 0o600


def test_a_repeat_changes_nothing_and_another_content_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        first = directives.take(directive("a"), "uid:0")
        content = (tmp_path / "directives").read_bytes()
        assert isinstance(first, Taken)
        clock.pass_s(10.0)
        assert directives.take(directive("a"), "another") == Taken(first.status, already=True)
        code, said = refused(directives.take(directive("a", lease_s=61.0), "uid:0"))
        assert code is Code.ALREADY_EXISTS and "id: a was taken before, from uid:0" in said
        clock.pass_s(100.0)
        assert directives.take(directive("a"), "uid:0") == Taken(
            replace(first.status, state=State.EXPIRED), already=True
        )
        assert refused(directives.take(directive("a", Lend()), "uid:0"))[0] is Code.ALREADY_EXISTS
        assert (tmp_path / "directives").read_bytes() == content
    with store(tmp_path, clock) as again:
        assert isinstance(again.take(directive("a"), "uid:0"), Taken)
        assert refused(again.take(directive("a", Lend()), "uid:0"))[0] is Code.ALREADY_EXISTS


def test_of_each_kind_the_latest_is_in_force_and_a_recall_takes_the_place_of_a_lend(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        for name, order in (
            ("hold", Hold(cpu_cores=1.0)),
            ("lend", Lend()),
            ("observe", SetMode(Mode.OBSERVE)),
            ("recall", Recall(BEGIN.unix + 5.0)),
            ("hold-2", Hold(memory_bytes=1)),
            ("enforce", SetMode(Mode.ENFORCE)),
        ):
            assert isinstance(directives.take(directive(name, order), "uid:0"), Taken)
        over = dict.fromkeys(("hold", "lend", "observe"), State.REPLACED)
        kept = dict.fromkeys(("recall", "hold-2", "enforce"), State.IN_FORCE)
        assert states(directives) == over | kept
        assert {s.directive.id for s in directives.news()[0]} == states(directives).keys()
        assert in_force(directives) == kept.keys()


def test_one_is_ended_before_its_time_and_an_unknown_one_is_not_found(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
        clock.pass_s(7.0)
        assert isinstance(directives.take(directive("e", End("a")), "uid:1"), Taken)
        assert states(directives) == {"a": State.ENDED, "e": State.ENDED}
        assert directives.known()[0].ends_unix == BEGIN.unix + 7.0
        assert isinstance(directives.take(directive("e2", End("a")), "uid:1"), Taken), "it has ended already"
        code, said = refused(directives.take(directive("e3", End("nobody")), "uid:1"))
        assert code is Code.NOT_FOUND and said.startswith("end_directive.id: ")


def test_what_does_not_fit_here_is_refused_with_the_reason_and_on_record(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock, enforcing=False, max_lease_s=60.0) as directives:
        code, said = refused(directives.take(directive("m", SetMode(Mode.ENFORCE)), "uid:0"))
        assert code is Code.FAILED_PRECONDITION and "agent.mode" in said
        assert refused(directives.take(directive("l", lease_s=61.0), "uid:0"))[0] is Code.INVALID_ARGUMENT
        assert directives.known() == ()
        assert [(r.id, r.issuer, r.code) for r in directives.news()[1]] == [
            ("m", "uid:0", Code.FAILED_PRECONDITION),
            ("l", "uid:0", Code.INVALID_ARGUMENT),
        ]
        assert directives.news() == ((), ())
        for number in range(100):
            directives.take(directive("\x1b[31m" * 100), f"uid:\n{number}")
        assert len(refusals := directives.news()[1]) == 16
        assert all(r.id.isprintable() and r.issuer.isprintable() and len(r.id) <= 256 for r in refusals)
    with store(tmp_path, clock, enabled=False) as off:
        assert refused(off.take(directive("a"), "uid:0"))[0] is Code.FAILED_PRECONDITION


def test_a_dry_run_answers_and_changes_nothing(tmp_path: Path) -> None:
    with store(tmp_path, Clock()) as directives:
        assert isinstance(directives.take(directive("a"), "uid:0", dry_run=True), Taken)
        assert refused(directives.take(directive("b", lease_s=-1.0), "uid:0", dry_run=True))
        assert (directives.known(), directives.news()) == ((), ((), ()))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a full disk")
def test_a_disk_that_is_full_refuses_the_directive_and_nothing_changes(tmp_path: Path) -> None:
    """On a real file system without room, as `UNAVAILABLE`; once there is room the same one is taken."""
    script = """
import sys
from pathlib import Path
from tests.unit.test_directives_store import *
home = Path(sys.argv[1])
if os.system(f"mount -t tmpfs -o size=64k na-directives {home}"):
    sys.exit(77)
clock = Clock()
with store(home, clock) as directives:
    assert isinstance(directives.take(directive("first"), "uid:0"), Taken)
    filler = home / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096): pass
        except OSError: pass
    directives.news()
    code, said = refused(directives.take(directive("second", Lend()), "uid:0"))
    assert code is Code.UNAVAILABLE and "No space left" in said, said
    assert in_force(directives) == {"first"}
    assert not select.select([directives], [], [], 0)[0] or not directives.drain()
    filler.unlink()
    assert isinstance(directives.take(directive("second", Lend()), "uid:0"), Taken)
    assert in_force(directives) == {"first", "second"}
"""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1)")
    words = [unshare, "-m", "--propagation", "private", sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("may not mount here")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wall_s", [-1e6, -30.0, 0.0, 30.0, 1e6])
def test_no_jump_of_the_wall_clock_makes_a_lease_longer(tmp_path: Path, wall_s: float) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
        clock.pass_s(20.0)
        clock.now = Now(clock.now.unix + wall_s, clock.now.boot_s)
        assert (in_force(directives) == {"a"}) == (wall_s < 40.0)
        clock.pass_s(40.0)
        assert in_force(directives) == set()
        clock.now = Now(BEGIN.unix, BEGIN.boot_s)
        assert in_force(directives) == set(), "what has ended stays ended"


@pytest.mark.parametrize(
    ("down_s", "boot", "left"), [(30, "boot-1", 30), (30, "boot-2", 30), (61, "boot-2", 0)]
)
def test_a_restart_goes_on_with_the_time_that_is_left(
    tmp_path: Path, down_s: float, boot: str, left: float
) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
    clock.pass_s(down_s)
    if boot != "boot-1":
        clock.now = Now(clock.now.unix, 12.0)
    with store(tmp_path, clock, boot) as again:
        assert again.warning == ""
        assert in_force(again) == ({"a"} if left else set())
        clock.pass_s(left)
        told = [s.state for s in again.news()[0]]
        assert told == ([State.EXPIRED] if left else [])
        assert states(again) == {"a": State.EXPIRED}


def test_in_another_boot_with_a_clock_set_back_no_more_than_the_rest_of_the_lease_is_left(
    tmp_path: Path,
) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
        clock.pass_s(45.0)
        directives.save()
    clock.now = Now(1000.0, 3.0)
    with store(tmp_path, clock, "boot-2") as again:
        assert in_force(again) == {"a"}
        clock.pass_s(14.9)
        assert in_force(again) == {"a"}
        clock.pass_s(0.1)
        assert in_force(again) == set()


@law
@given(
    st.lists(
        st.sampled_from(["take", "end", "restart", "reboot"])
        | st.floats(0.1, 200.0)
        | st.sampled_from([-1e6, -50.0, 50.0, 1e6]).map(str),
        max_size=40,
    )
)
@example(["take", 100.0, "reboot", "take", "restart"])
def test_in_any_course_nothing_is_lost_outlives_its_lease_or_comes_back(
    tmp_path: Path, course: list[str | float]
) -> None:
    """Time that passes is a number, a jump of the wall clock one in text; what runs is saved at the end."""
    clock, boots, ids, age = Clock(), 1, 0, dict[str, float]()
    over: set[str] = set()
    (tmp_path / "directives").unlink(missing_ok=True)
    orders = (Hold(cpu_cores=1.0), Lend(), SetMode(Mode.OBSERVE))
    directives = Directives(str(tmp_path), "boot-1", DirectiveSettings(), enforcing=True, clock=clock)
    for step in course:
        if step == "take":
            ids += 1
            age[f"id-{ids}"] = 0.0
            assert isinstance(directives.take(directive(f"id-{ids}", orders[ids % 3]), "uid:0"), Taken)
        elif step == "end":
            directives.take(directive(f"end-{ids}", End(f"id-{ids}")), "uid:0")
        elif step in ("restart", "reboot"):
            directives.save()
            directives.close()
            boots += step == "reboot"
            clock.now = clock.now if step == "restart" else Now(clock.now.unix, 3.0)
            before, boot = states(directives), f"boot-{boots}"
            directives = Directives(str(tmp_path), boot, DirectiveSettings(), enforcing=True, clock=clock)
            assert (directives.warning, states(directives)) == ("", before)
        elif isinstance(step, float):
            clock.pass_s(step)
            age = {each: passed_s + step for each, passed_s in age.items()}
        else:
            clock.now = Now(max(0.0, clock.now.unix + float(step)), clock.now.boot_s)
        running = in_force(directives)
        assert all(age[each] < 60.0 for each in running) and not running & over
        over |= {each for each, state in states(directives).items() if state is not State.IN_FORCE}
    directives.close()


def test_what_is_over_is_saved_once_and_stays_over_whatever_the_clocks_say(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "directives"
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
        clock.pass_s(60.0)
        directives.news()
        before = path.stat().st_ino
        directives.save()
        saved = path.stat().st_ino
        directives.save()
        assert before != saved == path.stat().st_ino
    clock.now = BEGIN
    with store(tmp_path, clock, "boot-2") as again:
        assert states(again) == {"a": State.EXPIRED}


def test_as_many_as_configured_are_remembered_and_those_in_force_always(tmp_path: Path) -> None:
    clock = Clock()
    with store(tmp_path, clock, kept=16) as directives:
        directives.take(directive("kept", Hold(cpu_cores=1.0), 6000.0), "uid:0")
        for number in range(40):
            directives.take(directive(f"n{number}", SetMode(Mode.OBSERVE)), "uid:0")
        assert len(directives.known()) == 16
        assert in_force(directives) == {"kept", "n39"}
        size = (tmp_path / "directives").stat().st_size
        assert size < 16 * 1024
    with store(tmp_path, clock, kept=16) as again:
        assert in_force(again) == {"kept", "n39"}


@law
@given(st.one_of(st.binary(max_size=80), st.integers(0, 10_000)))
def test_a_garbage_file_is_told_and_set_aside(tmp_path: Path, garbage: bytes | int) -> None:
    clock = Clock()
    with store(tmp_path, clock) as directives:
        directives.take(directive("a"), "uid:0")
    path = tmp_path / "directives"
    whole = bytearray(path.read_bytes())
    if isinstance(garbage, bytes):
        whole = bytearray(MAGIC + zlib.crc32(garbage).to_bytes(4, "little") + garbage)
    else:
        whole[garbage % len(whole)] ^= 1
    path.write_bytes(whole)
    with store(tmp_path, clock) as again:
        assert "no directive is in force" in again.warning and again.known() == ()
        assert (tmp_path / "directives.corrupt").read_bytes() == whole
        assert isinstance(again.take(directive("b"), "uid:0"), Taken)


def test_the_loop_is_woken_and_never_waits_for_a_writer(tmp_path: Path) -> None:
    with store(tmp_path, Clock()) as directives:
        directives.take(directive("a"), "uid:0")
        assert select.select([directives], [], [], 5.0)[0]
        directives.drain()
        assert not select.select([directives], [], [], 0.0)[0]
        with directives._writing:  # a writer that waits for the disk
            blocked = threading.Thread(target=directives.take, args=(directive("b", Lend()), "uid:0"))
            blocked.start()
            assert in_force(directives) == {"a"}
            directives.save()
            assert len(directives.known()) == 1
        blocked.join(10.0)
        assert in_force(directives) == {"a", "b"}


def test_a_kill_at_any_instant_leaves_what_was_answered(tmp_path: Path) -> None:
    script = """
import sys
from tests.unit.test_directives_store import *
directives = Directives(sys.argv[1], "boot-1", DirectiveSettings(kept=4096), enforcing=True)
for number in range(100_000):
    assert isinstance(directives.take(directive(f"{sys.argv[2]}-{number}", Lend()), "uid:0"), Taken)
    print(number, flush=True)
"""
    for turn in range(5):
        words = [sys.executable, "-c", script, str(tmp_path), str(turn)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(1 + 3 * turn):
                last = child.stdout.readline().strip()
            child.send_signal(signal.SIGKILL)
            last = (child.stdout.read().split() or [last])[-1]
        given = DirectiveSettings(kept=4096)
        with closing(Directives(str(tmp_path), "boot-1", given, enforcing=True)) as again:
            assert again.warning == ""
            names = [s.directive.id for s in again.known()]
            assert f"{turn}-{last}" in names
            assert len(in_force(again)) == 1
