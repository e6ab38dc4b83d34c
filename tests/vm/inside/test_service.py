"""The unit and systemd, told by each other: ready, reloaded, hung, failed, observing, asked."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_TIER
from tests.live.running import SPIN, TIMEOUT_S, executed, quota_cores, unique, until
from tests.vm.inside.guest import NODES, ONLY_HERE, output, ticks_of

pytestmark = ONLY_HERE
RUN_DIR = Path("/run/nodeagent")
SOCKET = RUN_DIR / "nodeagent.sock"
METRICS = "http://127.0.0.1:9464/metrics"
CONFIG = Path("/etc/nodeagent/nodeagent.toml")
DROP_INS = Path("/run/systemd/system/nodeagent.service.d")
OBSERVE = Path("/usr/local/share/nodeagent/nodeagent-observe.conf")
BAD = "[cpu]\nflor_cores = 0.25\n"
ASK = (
    "import sys, grpc; from nodeagent.v1 import nodeagent_pb2 as pb, nodeagent_pb2_grpc as rpc\n"
    f"stub = rpc.NodeAgentStub(grpc.insecure_channel('unix:{SOCKET}'))\n"
    "print(stub.GetCapacity(pb.GetCapacityRequest(), timeout=60).HasField('capacity'))"
)


def shown(name: str, unit: str = "nodeagent") -> str:
    return output("systemctl", "show", "--property", name, "--value", unit)


def now() -> str:
    """The end of the journal."""
    found = re.search(r"-- cursor: (.*)", output("journalctl", "--lines=0", "--show-cursor"))
    assert found is not None
    return found[1]


def said(cursor: str) -> str:
    """What the journal has of the unit since then."""
    words = ("--unit=nodeagent", "--output=cat", "--no-pager", f"--after-cursor={cursor}")
    return output("journalctl", *words)


def systemctl(*words: str) -> int:
    return subprocess.run(["systemctl", *words], check=False, capture_output=True).returncode


def metrics() -> str:
    with urlopen(METRICS) as page:
        return str(page.read().decode())


def drop_in(name: str, text: str) -> None:
    DROP_INS.mkdir(parents=True, exist_ok=True)
    (DROP_INS / f"{name}.conf").write_text(text)
    output("systemctl", "daemon-reload")


@pytest.fixture(autouse=True)
def begin() -> Iterator[str]:
    """The journal's end before the test; afterwards the unit is as it was installed, and at rest."""
    yield now()
    systemctl("stop", "nodeagent")
    systemctl("reset-failed", "nodeagent")
    shutil.rmtree(DROP_INS, ignore_errors=True)
    CONFIG.unlink(missing_ok=True)
    output("systemctl", "daemon-reload")
    output("nodeagent", "restore")


@contextlib.contextmanager
def batch() -> Iterator[str]:
    """The cgroup of a Batch pod."""
    name = unique("service")
    with executed(RUN_DIR, "batch", name, SPIN):
        yield f"{OWN_TIER}/{name}"


def bounded(path: str) -> None:
    until(lambda: quota_cores(path) is not None, "a quota on the pod")


def killed() -> None:
    os.kill(int(shown("MainPID")), signal.SIGKILL)


def test_start_ends_with_a_complete_tick_and_the_status_tells_how_the_node_is() -> None:
    output("systemctl", "start", "nodeagent")
    assert ticks_of(metrics()) >= 1
    line = r"enforcing cpu; offers .* of \d+ cores, .*iB; \d+ pods \(.* LS, .* MID, .* BATCH\); .*pressure"
    until(lambda: re.match(line, shown("StatusText")) is not None, "rates are known")
    status = output("systemctl", "status", "--no-pager", "nodeagent")
    assert f'Status: "{line.partition(";")[0]}; ' in status


@contextlib.contextmanager
def unlisted(directory: Path) -> Iterator[None]:
    """Only its owner, which is nobody here, may see what is in it."""
    os.chown(directory, 4711, -1)
    directory.chmod(0o711)
    try:
        yield
    finally:
        os.chown(directory, 0, -1)
        directory.chmod(0o755)


def test_it_is_not_ready_while_the_node_cannot_be_read_and_says_why() -> None:
    drop_in("observe", OBSERVE.read_text())
    drop_in("patient", "[Service]\nTimeoutStartSec=3600\n")
    with unlisted(Path(find_hierarchies().walk_root)):
        start = subprocess.Popen(["systemctl", "start", "nodeagent"])
        until(lambda: shown("StatusText").startswith("changing nothing: "), "a word about it")
        assert (shown("ActiveState"), start.poll()) == ("activating", None)
    assert start.wait(TIMEOUT_S) == 0
    assert shown("StatusText").startswith("observing; ")


def test_its_cgroup_is_beside_those_that_it_manages_with_weight_and_memory_of_its_own() -> None:
    output("systemctl", "start", "nodeagent")
    assert shown("ControlGroup") == "/nodeagent.slice/nodeagent.service"
    assert (shown("CPUWeight", "nodeagent.slice"), shown("MemoryMin", "nodeagent.slice")) == (
        "1000",
        str(64 << 20),
    )
    score = Path("/proc", shown("MainPID"), "oom_score_adj").read_text()
    assert score == "-900\n"


def test_reload_takes_a_good_file_and_fails_with_the_line_of_a_bad_one(begin: str) -> None:
    output("systemctl", "start", "nodeagent")
    main = shown("MainPID")
    CONFIG.write_text("[cpu]\nfloor_cores = 0.25\n")
    output("systemctl", "reload", "nodeagent")
    until(lambda: "config.reloaded" in said(begin), "the file is read")
    CONFIG.write_text(BAD)
    assert systemctl("reload", "nodeagent") != 0
    assert f"{CONFIG}:2: unknown key cpu.flor_cores" in said(begin)
    assert "config.refused" not in said(begin)
    output("systemctl", "kill", "--signal=HUP", "--kill-who=main", "nodeagent")
    until(lambda: "configuration refused" in shown("StatusText"), "the status line says so")
    CONFIG.unlink()
    output("systemctl", "reload", "nodeagent")
    until(lambda: "configuration refused" not in shown("StatusText"), "the status line is as before")
    assert (shown("ActiveState"), shown("MainPID"), shown("NRestarts")) == ("active", main, "0")


def test_the_watchdog_ends_an_agent_that_hangs_tells_where_and_the_next_one_goes_on(begin: str) -> None:
    drop_in("watchdog", "[Service]\nWatchdogSec=15\n")
    output("systemctl", "start", "nodeagent")
    with batch() as path:
        bounded(path)
        until(lambda: ticks_of(metrics()) > 3, "some ticks")
        before = int(shown("NRestarts"))
        os.kill(int(shown("MainPID")), signal.SIGSTOP)
        until(lambda: int(shown("NRestarts")) == before + 1, "the restart", 60)
        assert "Watchdog timeout" in said(begin)
        assert re.search(r'File ".*/loop.py", line \d+ in ', said(begin)), "the stack"
        assert "restored  cpu.quota" in said(begin)
        bounded(path)
        until(lambda: shown("ActiveState") == "active", "it is ready")


def test_a_long_pace_does_not_starve_the_watchdog(begin: str) -> None:
    CONFIG.write_text("[agent]\ntick_s = 60.0\n")
    drop_in("watchdog", "[Service]\nWatchdogSec=8\n")
    output("systemctl", "start", "nodeagent")
    main = shown("MainPID")
    with subprocess.Popen(["sleep", "20"]) as sleep:
        until(lambda: sleep.poll() is not None, "more than two periods")
    assert (shown("MainPID"), shown("NRestarts"), "Watchdog" in said(begin)) == (main, "0", False)


def test_after_too_many_kills_it_stays_down_and_all_is_given_back() -> None:
    drop_in("limit", "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=3600\n")
    output("systemctl", "start", "nodeagent")
    with batch() as path:
        bounded(path)
        killed()
        until(lambda: (shown("NRestarts"), shown("ActiveState")) == ("1", "active"), "the restart")
        bounded(path)
        killed()
        until(lambda: shown("ActiveState") == "failed", "no more restarts")
        until(lambda: quota_cores(path) is None and quota_cores(OWN_TIER) is None, "all is given back")
    until(lambda: shown("ActiveState", "nodeagent-restore") == "inactive", "its end")
    assert shown("Result", "nodeagent-restore") == "success"


def test_a_wrong_configuration_is_told_at_once_and_not_tried_again(begin: str) -> None:
    CONFIG.write_text(BAD)
    assert systemctl("start", "nodeagent") != 0
    assert (shown("ExecMainStatus"), shown("NRestarts"), shown("ActiveState")) == ("78", "0", "failed")
    assert f"{CONFIG}:2: unknown key cpu.flor_cores" in said(begin)


def test_observing_it_has_no_rights_and_writes_nothing_but_tells_all(begin: str) -> None:
    CONFIG.write_text('[agent]\non_exit = "keep"\n[http]\naddress = "127.0.0.1:9464"\n')
    output("systemctl", "start", "nodeagent")
    with batch() as path:
        bounded(path)
        drop_in("observe", OBSERVE.read_text())
        output("systemctl", "restart", "nodeagent")
        assert quota_cores(path) is None, "what the other had kept is given back"
        until(lambda: ticks_of(metrics()) > 3, "some ticks")
        assert quota_cores(path) is None and quota_cores(OWN_TIER) is None
        assert shown("StatusText").startswith("observing; offers ")
        assert re.search(r'nodeagent_pods\{.*qos="batch".*\} 1', metrics()), metrics()
        process = Path("/proc", shown("MainPID"))
        held = re.findall(r"Cap(?:Prm|Eff|Bnd):\s+(\w+)", (process / "status").read_text())
        assert {int(each, 16) for each in held} == {0}
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        cgroups = [m[5] for m in mounts if m[4].startswith("/sys/fs/cgroup")]
        assert cgroups and all("ro" in options.split(",") for options in cgroups)
        assert not re.search(r'"level": "(warning|error)"', said(begin)), said(begin)


def test_a_member_of_the_group_may_ask_and_another_user_may_not() -> None:
    output("systemctl", "start", "nodeagent")
    group = output("getent", "group", "nodeagent").split(":")[2]
    found = SOCKET.stat()
    assert (oct(found.st_mode & 0o777), found.st_uid, str(found.st_gid)) == ("0o660", 0, group)

    def asks(*groups: str) -> subprocess.CompletedProcess[str]:
        user = ("setpriv", "--reuid=4711", "--regid=4711", *groups)
        return subprocess.run([*user, "python3", "-c", ASK], check=False, capture_output=True, text=True)

    member, other = asks(f"--groups={group}"), asks("--clear-groups")
    assert (member.returncode, member.stdout) == (0, "True\n"), member.stderr
    assert other.returncode != 0
    assert "Permission denied" in other.stderr
    told = subprocess.run(
        ("setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "nodeagent", "nic"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert "or as a member of the group nodeagent" in told.stderr


def test_within_the_sandbox_psi_wakes_it_and_nothing_is_refused(begin: str) -> None:
    output("systemctl", "start", "nodeagent")
    with batch() as path, executed(RUN_DIR, "ls", unique("web"), SPIN):
        bounded(path)
        opened = Path("/proc", shown("MainPID"), "fd")
        until(lambda: any("pressure" in _leads_to(fd) for fd in opened.iterdir()), "a PSI trigger")
        until(lambda: 'woken_by="psi"' in metrics(), "it was woken")
    assert re.findall(r".*(?:refused|EPERM|not permitted|CAP_|Read-only).*", said(begin)) == []


def _leads_to(fd: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(fd)
    return ""


@pytest.mark.skipif(len(list(NODES.glob("node[0-9]*"))) < 2, reason="needs two NUMA nodes")
def test_within_the_sandbox_it_moves_pages_beside_the_ticks(begin: str) -> None:
    CONFIG.write_text("[numa]\nplacement = true\n")
    output("systemctl", "start", "nodeagent")
    held = "numactl --interleave=all python3 -S -c 'import time; a = b\"x\" * (64 << 20); time.sleep(3600)'"
    with executed(RUN_DIR, "ls", unique("pages"), held, "--numa", "bind", "--cpus", "1"):
        until(lambda: '"pages.moved"' in said(begin), "its pages are on its node")
    assert "CAP_SYS_NICE" not in said(begin)


def test_what_is_installed_is_all_gone_after_uninstalling_and_the_rest_stays(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    env = {**os.environ, "DESTDIR": str(tmp_path), "PREFIX": "/opt/x"}
    for what in ("service", "uninstall"):
        subprocess.run(["sh", "systemd/install.sh", what], cwd=root, env=env, check=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert (before, left) == ([], ["etc/nodeagent/nodeagent.toml"])
