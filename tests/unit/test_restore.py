"""`restore` on captured hosts: everything back where it was, and every other case told."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.lock import Lock
from nodeagent.model.errors import Failed, Unsupported
from nodeagent.model.plan import Change, Kind, Knob, Value
from nodeagent.originals import Originals
from nodeagent.restore import as_text, restore

BOOT = "0b9c8f5e-2f6e-4e0c-9d53-52a1d1a2b3c4"
V1 = {
    "cpu.cfs_quota_us": "-1\n",
    "cpu.cfs_period_us": "100000\n",
    "cpu.cfs_burst_us": "0\n",
    "cpu.shares": "1024\n",
    "cpu.idle": "0\n",
}
CLASSES_V1 = {"net_cls.classid": "0\n"}
REST_V1 = {
    "memory": {"memory.soft_limit_in_bytes": "9223372036854771712\n"},
    "blkio": {"blkio.bfq.weight": "100\n"},
    "freezer": {"freezer.state": "THAWED\n", "cgroup.procs": "4242\n"},
}
SETS_V1 = {"cpuset.cpus": "0-3\n", "cpuset.mems": "0-1\n", "cpuset.memory_migrate": "0\n"}
V2 = {"cpu.max": "max 100000\n", "cpu.max.burst": "0\n", "cpu.weight": "100\n", "cpu.idle": "0\n"}
REST_V2 = {
    "memory": {"memory.high": "max\n"},
    "io": {"io.weight": "default 100\n", "io.bfq.weight": "default 100\n"},
    "freezer": {"cgroup.freeze": "0\n", "cgroup.events": "populated 1\nfrozen 0\n"},
}
SETS_V2 = {
    "cpuset.cpus": "\n",
    "cpuset.cpus.effective": "0-3\n",
    "cpuset.mems": "\n",
    "cpuset.mems.effective": "0-1\n",
}
MOUNTS = {
    1: "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "34 31 0:31 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n"
    "37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n",
    2: "32 31 0:29 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n",
}
OURS = float(0x4E510030)
TIER, POD = "nodeagent/batch", "nodeagent/batch/sort"


class CapturedHost:
    """A host below a directory, with the agent's tier and one pod, whose knobs were changed."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.state = root / "host", root / "state"
        self.cgroups = self.root / "sys/fs/cgroup"
        self.cpu, self.cpuset = (self.cgroups / (name if version == 1 else "") for name in ("cpu", "cpuset"))
        self.net_cls = self.cgroups / ("net_cls" if version == 1 else "")
        only_v1 = () if version == 1 else (Kind.MIGRATE, Kind.NET_CLASS)
        self.kinds = [k for k in Kind if not k.of_nic and k not in only_v1]
        for target in (TIER, POD):
            for place, files in (
                (self.cpu, V1 if version == 1 else V2),
                (self.cpuset, SETS_V1 if version == 1 else SETS_V2),
                (self.net_cls, CLASSES_V1 if version == 1 else {}),
                *((self.cgroups / name, files) for name, files in REST_V1.items() if version == 1),
                *((self.cgroups, files) for files in REST_V2.values() if version == 2),
            ):
                (place / target).mkdir(parents=True, exist_ok=True)
                for name, text in files.items():
                    (place / target / name).write_text(text)
        if version == 2:
            (self.cgroups / "cgroup.controllers").write_text("cpu cpuset io memory\n")
        (self.root / "proc/1").mkdir(parents=True)
        (self.root / "proc/1/mountinfo").write_text(MOUNTS[version])
        (self.root / "proc/sys/kernel/random").mkdir(parents=True)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(BOOT + "\n")
        self.first = self.texts()

    def texts(self) -> dict[str, str]:
        return {str(p): p.read_text().strip() for p in sorted(self.cgroups.rglob("*.*"))}

    def quota_file(self, target: str) -> Path:
        names = ("cpu.cfs_quota_us", "cpu.max")
        return next(p for p in (self.cpu / target / name for name in names) if p.exists())

    def changed_and_crashed(self) -> None:
        originals, knobs = Originals(str(self.state), BOOT), Knobs(find_hierarchies(str(self.root)))
        new: dict[Kind, Value] = {
            Kind.CPU_QUOTA: 0.5,
            Kind.CPU_BURST: 0.25,
            Kind.CPU_WEIGHT: 0.0,
            Kind.CPUS: "0-1",
            Kind.MEMS: "1",
            Kind.MIGRATE: 1.0,
            Kind.MEMORY_HIGH: float(64 << 20),
            Kind.IO_WEIGHT: 0.01,
            Kind.FREEZE: 1.0,
            Kind.NET_CLASS: OURS,
        }
        found = knobs.read([Knob(kind, target) for target in (TIER, POD) for kind in self.kinds], {})
        wanted = [Change(r.knob, r.actual, new[r.knob.kind], "t") for r in found]
        changes = originals.intend(wanted, knobs.inode)
        assert len(changes) == 2 * len(self.kinds)
        assert all(outcome.ok for outcome in knobs.apply(changes))
        originals.close()
        knobs.close()


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def host(tmp_path: Path, request: pytest.FixtureRequest) -> CapturedHost:
    made = CapturedHost(tmp_path, request.param)
    made.changed_and_crashed()
    assert made.texts() != made.first
    return made


def test_everything_is_put_back_and_restoring_again_has_nothing_to_do(host: CapturedHost) -> None:
    restored = restore(str(host.state), str(host.root))
    assert host.texts() == host.first
    assert len(restored.put_back) == 2 * len(host.kinds)
    assert not restored.left + restored.gone + restored.warnings
    assert not restored.failed
    again = restore(str(host.state), str(host.root))
    assert not again.put_back


def test_cgroups_that_were_made_with_our_network_class_give_it_back_too(tmp_path: Path) -> None:
    host = CapturedHost(tmp_path, 1)
    (host.net_cls / TIER / "net_cls.classid").write_text("1048577\n")  # 10:1, somebody's before us
    host.changed_and_crashed()
    # the pod was there before: it had none itself
    later = {f"{POD}/late": "0", f"{POD}/late/inner": "0", f"{TIER}/other": "1048577"}
    later[f"{POD}/theirs"] = "2097153"
    for target in later:
        (host.net_cls / target).mkdir()
        text = "2097153" if target.endswith("theirs") else str(int(OURS))
        (host.net_cls / target / "net_cls.classid").write_text(text)
    restored = restore(str(host.state), str(host.root))
    assert not restored.failed
    found = {target: (host.net_cls / target / "net_cls.classid").read_text() for target in later}
    assert found == later
    assert f"net_cls.classid {TIER}/other: 4e51:30 -> 10:1" in as_text(restored)


def test_what_another_writer_changed_is_left_and_told(host: CapturedHost) -> None:
    text = "30000" if "cfs" in host.quota_file(POD).name else "30000 100000"
    host.quota_file(POD).write_text(text)
    restored = restore(str(host.state), str(host.root))
    assert [(r.knob, r.actual, r.original) for r in restored.left] == [
        (Knob(Kind.CPU_QUOTA, POD), 0.3, math.inf)
    ]
    assert host.quota_file(POD).read_text() == text
    assert len(restored.put_back) == 2 * len(host.kinds) - 1


def test_what_is_gone_is_told(host: CapturedHost) -> None:
    for pod in [path for path in host.cgroups.rglob(POD) if path.is_dir()]:
        pod.rename(pod.parents[2] / "elsewhere")
    restored = restore(str(host.state), str(host.root))
    assert set(restored.gone) == {Knob(kind, POD) for kind in host.kinds}
    assert len(restored.put_back) == len(host.kinds)


def test_what_cannot_be_read_stays_in_the_ledger_for_the_next_time(host: CapturedHost) -> None:
    good = host.quota_file(POD).read_text()
    host.quota_file(POD).write_text("nonsense")
    restored = restore(str(host.state), str(host.root))
    bandwidth = {Knob(kind, POD) for kind in (Kind.CPU_QUOTA, Kind.CPU_BURST)}  # one period for both
    assert dict(restored.failed) == dict.fromkeys(bandwidth, "it cannot be read")
    host.quota_file(POD).write_text(good)
    assert {o.change.knob for o in restore(str(host.state), str(host.root)).put_back} == bandwidth
    assert host.texts() == host.first


def test_while_an_agent_lives_it_is_refused_with_its_pid(host: CapturedHost) -> None:
    before = host.texts()
    with Lock(str(host.state)), pytest.raises(Failed, match=rf"\b{os.getpid()}\b"):
        restore(str(host.state), str(host.root))
    assert host.texts() == before


def test_after_a_reboot_nothing_is_put_back(host: CapturedHost) -> None:
    (host.root / "proc/sys/kernel/random/boot_id").write_text(BOOT.replace("0b9c", "ffff"))
    before = host.texts()
    assert not restore(str(host.state), str(host.root)).put_back
    assert host.texts() == before


def test_a_wrong_state_directory_or_host_root_is_told_and_nothing_is_forgotten(
    host: CapturedHost, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match="no such directory"):
        restore(str(tmp_path / "typo"), str(host.root))
    assert not (tmp_path / "typo").exists()
    (host.root / "proc/1/mountinfo").write_text("")
    with pytest.raises(Unsupported):
        restore(str(host.state), str(host.root))
    (host.root / "proc/1/mountinfo").write_text(
        MOUNTS[1].replace("relatime - cgroup cgroup rw,", "relatime - cgroup cgroup rw,pids,x")
    )
    assert len(restore(str(host.state), str(host.root)).failed) == 2 * len(host.kinds)


def test_an_answer_shows_sets_as_the_kernel_lists_them(host: CapturedHost) -> None:
    told = as_text(restore(str(host.state), str(host.root)))
    before = "(empty)" if host.cpu == host.cpuset else "0-3"
    assert f"restored  cpuset.cpus {POD}: 0-1 -> {before}\n" in told
