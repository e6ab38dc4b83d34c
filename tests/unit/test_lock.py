"""The lock: with two real processes, since flock(2) is about nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.lock import Lock, holder
from nodeagent.model.errors import Failed

HOLD = """
import sys
from nodeagent.lock import Lock
Lock(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_agent_is_refused_and_told_who_holds_the_lock(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(
        Failed, match=rf"^another agent runs: pid {other.pid} \(python[^ ]*, since 20"
    ) as caught:
        Lock(str(tmp_path)).acquire()
    assert "stop it first" in caught.value.hint
    found = holder(str(tmp_path))
    assert found is not None
    assert found.pid == other.pid


def test_kill_9_frees_the_lock_and_what_the_dead_one_wrote_is_no_obstacle(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "lock").read_text().startswith(f"{other.pid} ")
    assert holder(str(tmp_path)) is None
    with Lock(str(tmp_path)):
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} ")


def test_release_lets_the_next_one_in_and_acquire_twice_is_once(tmp_path: Path) -> None:
    first, second = Lock(str(tmp_path)), Lock(str(tmp_path))
    first.acquire()
    first.acquire()
    with pytest.raises(Failed):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()
    assert holder(str(tmp_path)) is None


def test_a_removed_lock_file_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    with Lock(str(tmp_path)):
        (tmp_path / "lock").unlink()
        with Lock(str(tmp_path)):
            assert (tmp_path / "lock").exists()


def test_directory_and_file_are_for_their_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    with Lock(str(state)):
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "lock").stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(Failed, match=r"cannot lock .*: Too many levels of symbolic links"):
        Lock(str(tmp_path)).acquire()
    assert (tmp_path / "target").read_text() == "precious"


def test_a_directory_that_cannot_be_made_is_one_line_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match=r"cannot lock .*/file/state/lock: Not a directory") as caught:
        Lock(f"{tmp_path}/file/state").acquire()
    assert "agent.state_dir" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"x", b"1", b"1 2 3", b"\xff\xfe", b"-5 1.0", b"1 nan", b"9" * 64, b"1" * 30 + b" 1"]
)
def test_garbage_in_the_file_names_nobody_and_stops_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    assert holder(str(tmp_path)) is None
    with Lock(str(tmp_path)):
        assert holder(str(tmp_path)) is not None


def test_a_number_that_another_process_has_by_now_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()} 1000.0\n")
    assert holder(str(tmp_path)) is None
