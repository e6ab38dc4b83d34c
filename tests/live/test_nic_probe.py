"""The probe on this very kernel: it finds what is here, and what only seems to work it calls by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.nic.probe import probe
from nodeagent.model.nic import Classifier, NicSupport, Scheduler
from tests.live.net_pods import net_pods
from tests.live.own_netns import own_netns
from tests.live.running import SLOWNESS

pytestmark = pytest.mark.live

LIMIT_S = 5.0 * SLOWNESS
TELL = f"""import sys, msgspec
from nodeagent.kernel.nic.probe import probe
sys.stdout.buffer.write(msgspec.json.encode(probe({LIMIT_S})))"""


@pytest.fixture(scope="module")
def support() -> NicSupport:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return probe(LIMIT_S)


def has_qdisc(kind: str) -> bool:
    """Asked in another way: tc(8), in a namespace of its own."""
    with own_netns():
        return subprocess.run(f"tc qdisc add dev lo root {kind}".split(), check=False).returncode == 0


def left() -> list[Path]:
    roots = [Path(place.root) for place in find_hierarchies().all]
    return [found for root in roots for found in [*root.glob("na-probe-*"), *root.glob("*/na-probe-*")]]


def elsewhere(*through: str) -> NicSupport:
    """The answer of a probe that is started through another command."""
    done = subprocess.run([*through, sys.executable, "-c", TELL], capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=NicSupport)


def test_our_tree_is_proven_where_the_kernel_has_htb(support: NicSupport) -> None:
    assert (support.schedulers[Scheduler.HTB] == "") == has_qdisc("htb")
    assert support.schedulers[Scheduler.OBSERVE] == ""


def test_departure_times_work_just_where_there_is_fq(support: NicSupport) -> None:
    reason = support.schedulers[Scheduler.EDT]
    if has_qdisc("fq"):
        assert reason == ""
    else:
        assert reason == "qdisc fq: Specified qdisc kind is unknown; modprobe sch_fq"
    assert support.fq_codel == has_qdisc("fq_codel")


def test_each_classifier_is_proven_or_says_why_not(support: NicSupport) -> None:
    """Every kernel that these tests are run on has nf_tables, cls_bpf, u32, ifb and a bridge."""
    found = support.classifiers
    assert found[Classifier.U32] == ""
    if find_hierarchies().unified:
        assert (found[Classifier.NFT], found[Classifier.BPF]) == ("", "")
    else:
        assert found[Classifier.NFT].startswith("no cgroup v2 hierarchy is mounted")
    assert (support.ingress, support.schedulers[Scheduler.VETH], support.bridge) == ("", "", "")


def test_net_cls_is_proven_just_where_it_is_mounted() -> None:
    before = find_hierarchies().roots.keys()
    reason = probe(LIMIT_S).classifiers[Classifier.NET_CLS]
    if before != find_hierarchies().roots.keys():
        pytest.skip("somebody mounted a hierarchy meanwhile")
    assert reason == ("" if "net_cls" in before else "no net_cls hierarchy is mounted")


def test_nothing_stays_behind_after_an_answer_nor_after_the_end_of_its_time() -> None:
    with own_netns():
        before = Path("/proc/thread-self/net/dev").read_text()
        for limit_s in (0.01, 0.2, 0.3, 0.4, 0.6):
            probe(limit_s)
            assert left() == []
        answer = probe(LIMIT_S)
        assert left() == []
        assert Path("/proc/thread-self/net/dev").read_text() == before
    assert answer.schedulers[Scheduler.HTB] == ""


def test_an_end_of_its_time_is_said() -> None:
    answer = probe(0.01)
    assert set(answer.classifiers.values()) == {"the probe took more than 0.01 s"}
    assert answer.schedulers[Scheduler.HTB] == answer.ingress == "the probe took more than 0.01 s"


def test_a_cgroup_namespace_that_is_not_that_of_the_mounts_is_found_out() -> None:
    """The rule is accepted there, but its level is counted from elsewhere."""
    with net_pods() as pods:
        cgroup = pods.make("container")
        enter = " && ".join(f"echo $$ > {root}/{cgroup}/cgroup.procs" for root in pods.roots)
        answer = elsewhere("sh", "-c", f'{enter} && exec unshare --cgroup "$@"', "sh")
    reason = answer.classifiers[Classifier.NFT]
    if "nsdelegate" in Path("/proc/self/mountinfo").read_text():
        assert reason.endswith("No such file or directory; run the agent in the host's cgroup namespace")
    else:
        assert reason.endswith("was accepted, but a packet was not counted in its class")
        assert answer.classifiers[Classifier.BPF] == ""
    assert answer.schedulers[Scheduler.HTB] == ""


def without(*capabilities: str) -> NicSupport:
    """The answer of a probe that lacks these."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv on this host")
    dropped = ",".join(f"-{name}" for name in capabilities)
    return elsewhere("setpriv", f"--inh-caps={dropped}", f"--bounding-set={dropped}")


def test_without_sys_admin_all_but_ebpf_is_tried_in_a_user_namespace(support: NicSupport) -> None:
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode != 0:
        pytest.skip("no user namespaces on this host")
    answer = without("sys_admin", "net_raw", "bpf")
    assert {step: why for step, why in answer.schedulers.items() if step is not Scheduler.EDT} == {
        step: why for step, why in support.schedulers.items() if step is not Scheduler.EDT
    }
    reason = answer.classifiers.pop(Classifier.BPF)
    assert "Operation not permitted; give the agent CAP_BPF" in reason or not find_hierarchies().unified
    assert answer.classifiers.items() <= support.classifiers.items()
    assert (answer.ingress, answer.bridge) == (support.ingress, support.bridge)


def test_without_net_admin_that_is_the_reason() -> None:
    answer = without("net_admin")
    reason = answer.schedulers[Scheduler.HTB]
    assert reason.startswith("the agent lacks CAP_NET_ADMIN; ")
    assert {*answer.classifiers.values(), answer.ingress, answer.bridge} == {reason}


def test_without_any_namespace_that_is_the_reason() -> None:
    """A user namespace in which there may be no other one: as where user.max_user_namespaces is 0."""
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode != 0:
        pytest.skip("no user namespaces on this host")
    limit = "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_net_namespaces"
    answer = elsewhere("unshare", "--user", "--map-root-user", "sh", "-c", f'{limit} && exec "$@"', "sh")
    assert answer.schedulers[Scheduler.HTB].startswith("no network namespace to try in: ")
    assert set(answer.classifiers.values()) == {answer.schedulers[Scheduler.HTB]}
