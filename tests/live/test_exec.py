"""`nodeagent exec` on the real cgroups: each test runs commands in pods named after its own process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.kernel.tree import walk
from nodeagent.model.errors import AgentError
from nodeagent.model.pod import Priority, Qos
from nodeagent.pods.claims import read_claims
from nodeagent.pods.recognise import recognise
from tests.live.running import SLOWNESS

ROOT = Path(__file__).parents[2]
EXEC = """
import json, os, sys
from nodeagent.model.errors import AgentError
from nodeagent.model.pod import Priority, Qos
from nodeagent.pods.launch import launch
kwargs = json.loads(sys.argv[1])
os.setuid(kwargs.pop("uid", 0))
try:
    sys.exit(launch(sys.argv[2:], qos=Qos(kwargs.pop("qos")), priority=Priority.LOW, **kwargs))
except AgentError as error:
    print(f"{error} ({error.hint})", file=sys.stderr)
    sys.exit(error.exit_code)
"""
PYTHON = sys.executable
_numbers = itertools.count()


def _writable() -> str:
    try:
        hierarchies = find_hierarchies()
        path = f"na-test-{os.getpid()}-probe"
        make_pod_cgroup(hierarchies, path)
        remove_pod_cgroup(hierarchies, path)
    except AgentError as error:
        return str(error)
    return ""


_reason = _writable()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(_reason), reason=_reason)]


class Execs:
    """Starts execs in a run directory of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = str(run_dir)
        self.started: list[subprocess.Popen[str]] = []
        self.hierarchies = find_hierarchies()
        self.names: set[str] = set()

    def name(self) -> str:
        name = f"na-test-{os.getpid()}-{next(_numbers)}"
        self.names.add(name)
        return name

    def argv(self, *command: str, name: str | None = None, **options: str | float) -> list[str]:
        every = {"qos": "batch", "run_dir": self.run_dir, "name": self.name() if name is None else name}
        return [PYTHON, "-c", EXEC, json.dumps(every | options), *command]

    def start(self, *command: str, name: str | None = None, **options: str | float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(*command, name=name, **options),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.started.append(process)
        return process

    def run(self, *command: str, name: str | None = None, **options: str | float) -> tuple[int, str, str]:
        process = self.start(*command, name=name, **options)
        out, err = process.communicate(timeout=30 * SLOWNESS)
        return process.returncode, out, err

    def left(self) -> list[str]:
        """Cgroups and claims of this test's pods that are there now."""
        tops = [f"{h.root}/nodeagent/{qos.value}" for h in self.hierarchies.all for qos in Qos]
        found = [f"{top}/{name}" for top in tops for name in self.names if os.path.isdir(f"{top}/{name}")]
        claims = Path(self.run_dir, "pods")
        return found + ([str(path) for path in claims.iterdir()] if claims.exists() else [])

    def clean(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for name in self.names:
            for qos in Qos:
                remove_pod_cgroup(self.hierarchies, f"nodeagent/{qos.value}/{name}", grace_s=0)


@pytest.fixture
def execs(tmp_path: Path) -> Iterator[Execs]:
    execs = Execs(tmp_path / "run")
    yield execs
    execs.clean()


def until(true: Callable[[], object], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s * SLOWNESS
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_the_exit_status_is_the_commands(execs: Execs) -> None:
    assert execs.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert execs.left() == []


def test_death_by_a_signal_is_128_and_the_signal(execs: Execs) -> None:
    assert execs.run("sh", "-c", "kill -TERM $$")[0] == 143
    assert execs.left() == []


def test_a_missing_command_is_127_and_an_unexecutable_one_126(execs: Execs) -> None:
    code, _, err = execs.run("no-such-command-here")
    assert (code, err) == (127, "nodeagent exec: no-such-command-here: command not found\n")
    code, _, err = execs.run("/etc/passwd")
    assert (code, err) == (126, "nodeagent exec: /etc/passwd: Permission denied\n")
    assert execs.left() == []


@pytest.mark.parametrize("qos", ["ls", "mid", "batch"])
def test_the_command_is_in_its_pod_in_every_hierarchy(execs: Execs, qos: str) -> None:
    name = execs.name()
    code, out, _ = execs.run("cat", "/proc/self/cgroup", name=name, qos=qos)
    paths = [line.split(":", 2)[2] for line in out.splitlines()]
    elsewhere = [path for path in paths if path != f"/nodeagent/{qos}/{name}"]
    assert code == 0
    assert len(paths) - len(elsewhere) == len(execs.hierarchies.all)
    assert set(elsewhere) <= {"/"}  # of a hierarchy that nobody has mounted any more


def test_a_running_agent_sees_the_pod_with_its_request(execs: Execs) -> None:
    name = execs.name()
    process = execs.start("sh", "-c", "echo up; read wait", name=name, cpus=1.5, memory=1 << 20)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    dirs = walk(execs.hierarchies.walk_root)
    members = recognise(dirs, (), read_claims(execs.run_dir))
    (spec,) = [member.spec for member in members if member.spec.name == name]
    assert (spec.qos, spec.priority, spec.tier) == (Qos.BATCH, Priority.LOW, "nodeagent/batch")
    assert (spec.cpu_request_cores, spec.memory_request_bytes) == (1.5, 1 << 20)
    assert spec.inode == os.stat(f"{execs.hierarchies.walk_root}/{spec.cgroup}").st_ino

    process.communicate("\n", timeout=30 * SLOWNESS)
    assert process.returncode == 0
    assert execs.left() == []


def _signals(mask: str) -> set[int]:
    """The signals of a mask in /proc/PID/status, without glibc's own 32 and 33, which make leaves ignored."""
    return {n + 1 for n in range(64) if int(mask, 16) >> n & 1} - {32, 33}


def test_the_command_starts_with_no_signal_blocked_or_ignored_and_no_descriptor_more(execs: Execs) -> None:
    _, out, _ = execs.run("sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd")
    _, blocked, _, ignored, *fds = out.split()
    assert (_signals(blocked), _signals(ignored), fds) == (set(), set(), ["0", "1", "2"])


def test_what_the_caller_ignores_stays_ignored(execs: Execs) -> None:
    argv = execs.argv("sh", "-c", "grep SigIgn /proc/self/status")
    shell = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *argv]
    out = subprocess.run(
        shell, capture_output=True, text=True, cwd=ROOT, check=True, timeout=30 * SLOWNESS
    ).stdout
    assert _signals(out.split()[1]) == {signal.SIGHUP}


@pytest.mark.parametrize("signum", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_to_the_exec_reach_the_command(execs: Execs, signum: str) -> None:
    process = execs.start(
        "sh", "-c", f"trap 'echo got; exit 42' {signum}; echo up; while :; do sleep 0.01; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(getattr(signal, f"SIG{signum}"))
    assert process.communicate(timeout=30 * SLOWNESS)[0] == "got\n"
    assert process.returncode == 42
    assert execs.left() == []


def test_stopping_the_exec_stops_the_command_and_continuing_it_continues_both(execs: Execs) -> None:
    name = execs.name()
    process = execs.start("sh", "-c", "echo up; read line; exit 5", name=name)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert os.WSTOPSIG(status) == signal.SIGTSTP
    (command,) = (
        Path(execs.hierarchies.walk_root, "nodeagent/batch", name, "cgroup.procs").read_text().split()
    )
    assert state(command) == "T"
    process.send_signal(signal.SIGCONT)
    process.communicate("\n", timeout=30 * SLOWNESS)
    assert process.returncode == 5


def state(pid: str) -> str:
    """The letter of /proc/PID/stat, X (dead) also when there is none any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


# Not by pause(): a signal that comes just before it is not handled until the next one.
COUNT_INTS = """
import signal, sys, time
ints = 0
def count(*_):
    global ints
    ints += 1
    print("int", flush=True)
def tell(*_):
    sys.exit(ints)
signal.signal(signal.SIGINT, count)
signal.signal(signal.SIGUSR1, tell)
print("counting", flush=True)
while True: time.sleep(0.02)
"""


def test_a_terminals_interrupt_reaches_the_command_once(execs: Execs) -> None:
    """SIGUSR1 is sent after it, and exec takes pending signals in ascending order: a SIGINT first."""
    argv = execs.argv(PYTHON, "-c", COUNT_INTS)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(argv[0], argv)
    seen = b""
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, terminal)
        while b"counting" not in seen:  # "up" is in every path of a cgroup, also in what is complained of
            seen += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"int" not in seen:
            seen += os.read(terminal, 1000)
        os.kill(pid, signal.SIGUSR1)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert execs.left() == []


def test_what_the_command_leaves_behind_is_ended(execs: Execs) -> None:
    code, out, _ = execs.run("sh", "-c", "sleep 1000 & echo $!; exit 3")
    assert code == 3
    assert state(out.strip()) in "XZ"
    assert execs.left() == []


def test_what_ignores_sigterm_is_killed_after_two_seconds(execs: Execs) -> None:
    begin = time.monotonic()
    code, out, _ = execs.run("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; exit 4")
    assert code == 4
    assert 2.0 <= time.monotonic() - begin < 10.0 * SLOWNESS
    assert state(out.strip()) in "XZ"
    assert execs.left() == []


def test_cgroups_that_the_command_made_are_removed_too(execs: Execs) -> None:
    name = execs.name()
    inner = f"{execs.hierarchies.walk_root}/nodeagent/mid/{name}/a/b"
    assert execs.run("mkdir", "-p", inner, name=name, qos="mid")[0] == 0
    assert execs.left() == []


def test_two_at_once_run_and_a_second_of_one_name_is_refused(execs: Execs) -> None:
    name = execs.name()
    first = execs.start("sh", "-c", "echo up; read line", name=name)
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    assert execs.run("true", name=name) == (1, "", f"{name} is running already (choose another --name)\n")
    assert execs.run("true", name=name, run_dir=f"{execs.run_dir}-other")[0] == 1
    assert execs.run("true")[0] == 0
    assert execs.run("true", name=name, qos="mid")[0] == 0
    first.communicate("\n", timeout=30 * SLOWNESS)
    assert first.returncode == 0
    assert execs.left() == []


def test_many_at_once_make_and_remove_the_shared_levels_without_a_failure(execs: Execs) -> None:
    for _ in range(2):
        processes = [execs.start("true", qos="ls") for _ in range(8)]
        for process in processes:
            out, err = process.communicate(timeout=60 * SLOWNESS)
            assert (process.returncode, out, err) == (0, "", "")
    assert execs.left() == []


def test_what_a_killed_exec_leaves_is_removed_by_the_next_once_its_command_has_ended(execs: Execs) -> None:
    name = execs.name()
    process = execs.start("sh", "-c", "echo $$; read line", name=name)
    assert process.stdout is not None
    command = process.stdout.readline().strip()
    process.kill()
    process.wait()

    assert execs.run("true", name=name)[0] == 1  # the command still runs
    assert state(command) == "S"
    assert len(read_claims(execs.run_dir)) == 1

    process.communicate("\n", timeout=30 * SLOWNESS)
    until(lambda: state(command) in "XZ")
    assert execs.left() != []
    assert execs.run("true")[0] == 0
    assert execs.left() == []


def test_a_claim_without_a_cgroup_is_removed(execs: Execs) -> None:
    claims = Path(execs.run_dir, "pods")
    claims.mkdir(parents=True)
    (claims / "batch.na-test-killed-early.json").write_text("{")
    assert execs.run("true")[0] == 0
    assert execs.left() == []


def test_a_cgroup_that_cannot_be_made_in_all_hierarchies_is_left_in_none(execs: Execs) -> None:
    """memory.stat is a file in the memory hierarchy, and a good name in those before it."""
    assert any(h.name or "cpu" in h.controllers for h in execs.hierarchies.all)
    execs.names.add("memory.stat")
    keep = execs.start("sh", "-c", "echo up; read line")  # keeps the levels above
    assert keep.stdout is not None
    keep.stdout.readline()
    code, _, err = execs.run("true", name="memory.stat")
    assert code == 1
    assert "memory.stat exists already (choose another --name)" in err
    keep.communicate("\n", timeout=30 * SLOWNESS)
    assert execs.left() == []


def test_without_permission_it_is_refused_with_one_line(execs: Execs) -> None:
    code, out, err = execs.run("true", uid=65534)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run as root" in err
    assert execs.left() == []


def test_bad_arguments_are_refused_before_anything_is_made(execs: Execs) -> None:
    for name in ("", "-x", "a/b", "..", "x" * 64, "a b"):
        code, _, err = execs.run("true", name=name)
        assert code == 2
        assert "not a pod name" in err
    assert "not a number of cores" in execs.run("true", cpus=-1)[2]
    assert "not a number of bytes" in execs.run("true", memory=0)[2]
    assert "no command" in execs.run()[2]
    assert execs.left() == []
