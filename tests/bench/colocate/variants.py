"""Who is on the node in each variant, with which weights, and who controls Batch.

    nodeagent/ls/...       online pods       nodeagent/batch/...       Batch pods

These are the cgroups that `nodeagent exec` makes, the same ones in all variants. Without control the pods are
equal: each has the weight that a cgroup has by default, as if all were siblings. Static weights are those of
Kubernetes, 1024 for an online pod and 2 for all BestEffort ones. koordlet's driver adds a quota to them.
SCHED_IDLE is the best that the kernel does without anybody: static weights, and Batch's tier gives way.
nodeagent starts on cgroups as they are made, without any configuration, and sets all by itself; "by quota" is
with cpu.yielding_ceiling_ratio = 0: what it keeps free where SCHED_IDLE does not part Batch from online pods.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.pod import OWN_LS, OWN_ROOT, OWN_TIER
from tests.bench.colocate.runs import BATCH_ALONE, BY_QUOTA, EQUAL, IDLE, KOORDLET, NODEAGENT, STATIC
from tests.bench.eval.places import SHARES_PER_CORE, Place, ended, weigh
from tests.live.running import running

BEST_EFFORT_SHARES = 2  # Kubernetes: pkg/kubelet/cm/qos_container_manager_linux.go


def weights(variant: str, online: int, batch: int) -> tuple[int, int] | None:
    """cpu.shares of the directories of so many online and Batch pods; None: left as they were made."""
    if variant in (EQUAL, BATCH_ALONE):
        return SHARES_PER_CORE * online or SHARES_PER_CORE, SHARES_PER_CORE * batch
    if variant in (STATIC, IDLE, KOORDLET):
        return SHARES_PER_CORE * online, BEST_EFFORT_SHARES
    return None


@contextlib.contextmanager
def controlled(
    variant: str,
    hierarchies: Hierarchies,
    online: Sequence[Place],
    batch: Sequence[Place],
    home: Path,
    agent: Mapping[str, str],
) -> Iterator[int | None]:
    """Weights, and whoever controls Batch in this variant; yields its pid, None without one."""
    if online and batch and (shares := weights(variant, len(online), len(batch))) is not None:
        for cgroup, value in zip((OWN_LS, OWN_TIER), shares, strict=True):
            weigh(hierarchies, cgroup, value)
    if variant == IDLE:
        idle = Path(hierarchies.roots["cpu"].root, OWN_TIER, "cpu.idle")
        idle.write_text("1")
        try:
            yield None
        finally:
            idle.write_text("0")
    elif variant == KOORDLET:
        words = [sys.executable, "-m", "tests.bench.colocate.koordlet", OWN_TIER, *(p.cgroup for p in online)]
        with ended(subprocess.Popen(words, start_new_session=True)) as driver:
            yield driver.pid
            assert driver.poll() is None, "koordlet's driver ended"
    elif variant in (BY_QUOTA, NODEAGENT):
        values: dict[str, object] = {"agent__tick_s": 1.0, "log__level": "info", **agent}
        values |= {"cpu.yielding_ceiling_ratio": 0.0} if variant == BY_QUOTA else {}
        with running(home, None, (), **values) as process:
            yield process.process.pid
            assert process.process.poll() is None, process.log_path.read_text()[-2000:]
    else:
        yield None


def inhabited(hierarchies: Hierarchies) -> bool:
    """True while processes are below the cgroups of `nodeagent exec`: then they are not ours to use."""
    root = Path(hierarchies.walk_root, OWN_ROOT)
    return any(file.read_text() for file in root.glob("**/cgroup.procs"))
