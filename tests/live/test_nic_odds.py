"""What happens to NICs that no plan foresees: halves that fail, others' hands, swapped names, old remains."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from nodeagent.core.nic import readings
from nodeagent.core.nic.tree import tree
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.nic import network as network_of_node
from nodeagent.kernel.nic.network import Network, remove_all
from nodeagent.kernel.node_lock import NodeLock
from nodeagent.model.errors import Failed
from nodeagent.model.nic import Classifier, Marks, NicPlan, Role, Scheduler, Shaping
from nodeagent.model.nic_policy import NicRule
from nodeagent.model.plan import Kind, numeric
from nodeagent.restore import restore
from tests.live.nic_agent import BATCH, ONLINE, SETTINGS, configured, shaping
from tests.live.nic_lab import classes, inside, lab
from tests.live.own_netns import ip, own_netns
from tests.live.running import running, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
TOP = 950e6
NOBODY = 65534
MARKS = Marks(Classifier.NFT, "")


def _tc(words: str) -> str:
    return subprocess.run(["tc", *words.split()], check=True, capture_output=True, text=True).stdout


@contextmanager
def _network(*names: str) -> Iterator[Network]:
    """What acts on NICs, in a namespace with these."""
    with own_netns():
        ip(
            *(f"link add {name} type veth peer name to-{name}" for name in names),
            *(f"link set {name} up" for name in names),
        )
        with closing(Network(find_hierarchies("/"), "/")) as network:
            yield network


def _shaping(ceiling_bps: float, *names: str, ingress: bool = False) -> Shaping:
    wanted = tree(NicRule(match="*"), TOP, ceiling_bps)
    plans = (
        NicPlan(
            name=name,
            index=socket.if_nametoindex(name),
            role=Role.SHARED,
            scheduler=Scheduler.HTB,
            why="",
            tree=wanted,
            ingress=wanted if ingress else None,
        )
        for name in names
    )
    return Shaping(tuple(plans), Marks(Classifier.NFT, ""))


def _seen(network: Network) -> tuple[dict[str, float], list[str], tuple[str, ...]]:
    """Batch's ceiling on each NIC, the knobs that somebody else has written, and what failed."""
    seen = network.read((), (), time.monotonic())
    found = [*readings(seen, (), network.written)]
    ceilings = {
        r.knob.target.partition("/")[0]: numeric(r.actual)
        for r in found
        if r.knob.kind is Kind.NIC_CEIL and r.knob.target.endswith("/batch")
    }
    return ceilings, [str(r.knob) for r in found if r.drifted], seen.failed


def test_a_half_that_fails_keeps_the_other_from_neither_work_nor_being_ours() -> None:
    with _network("nic0") as network:
        network.set(_shaping(TOP, "nic0", ingress=True))
        assert _seen(network) == ({"nic0": TOP}, [], ())
        _tc("filter add dev nic0 ingress protocol ip prio 65000 u32 match ip dport 9 0xffff flowid 77:1")
        for ceiling_bps in (9e8, 1e8, 4e8):
            network.set(_shaping(ceiling_bps, "nic0", ingress=True))
            ceilings, drifted, failed = _seen(network)
            assert (ceilings, drifted) == ({"nic0": ceiling_bps}, [])
            assert len(failed) == 1 and "would be bypassed" in failed[0]
        network.set(_shaping(5e8, "nic0"))
        assert _seen(network) == ({"nic0": 5e8}, [], ())


def test_nics_that_swap_their_names_are_as_they_were_left() -> None:
    with _network("nic0", "nic1") as network:
        network.set(Shaping((*_shaping(1e8, "nic0").nics, *_shaping(9e8, "nic1").nics), MARKS))
        assert _seen(network) == ({"nic0": 1e8, "nic1": 9e8}, [], ())
        ip("link set nic0 down", "link set nic1 down")  # before Linux 6.2 none that is up is renamed
        ip("link set nic0 name x", "link set nic1 name nic0", "link set x name nic1")
        ip("link set nic0 up", "link set nic1 up")
        until(lambda: _seen(network)[0]["nic0"] == 9e8, "the names are swapped")
        assert _seen(network) == ({"nic0": 9e8, "nic1": 1e8}, [], ())


def test_a_probe_without_an_answer_lets_what_is_shaped_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with _network("nic0") as network:
        monkeypatch.setattr(network_of_node, "PROBE_LIMIT_S", 0.01)
        with closing(Network(find_hierarchies("/"), "/")) as blind:
            assert "more than 0.01 s" in blind.support.unanswered, "nothing is shaped: it goes on"
        network.set(_shaping(1e8, "nic0"))
        with pytest.raises(Failed, match="stay as they are"):
            Network(find_hierarchies("/"), "/")
        assert _seen(network) == ({"nic0": 1e8}, [], ())


def test_what_somebody_else_writes_between_two_beats_is_seen_by_the_tick() -> None:
    with _network("nic0") as network:
        network.set(_shaping(1e8, "nic0"))
        network.sample(time.monotonic())
        network.follow(_shaping(2e8, "nic0"))
        assert _seen(network) == ({"nic0": 2e8}, [], ())
        _tc("class change dev nic0 parent 4e51:1 classid 4e51:30 htb rate 47500kbit ceil 900mbit")
        network.sample(time.monotonic())
        network.follow(_shaping(3e8, "nic0"))
        ceilings, drifted, _ = _seen(network)
        assert (ceilings, "nic.ceil nic0/batch" in drifted) == ({"nic0": 9e8}, True), drifted


def test_a_failure_is_told_once_also_where_nothing_is_ever_set() -> None:
    with _network("nic0") as network:
        network.failed["links"] = "it was so"
        assert _seen(network)[2] == ("links: it was so",)
        assert _seen(network)[2] == ()


def test_who_may_not_remove_it_is_told_of_all_that_is_left() -> None:
    with _network("nic0") as network:
        network.set(_shaping(1e8, "nic0"))
        assert network.failed == {}
        end, other = os.pipe()
        if (child := os.fork()) == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(other, "\n".join(remove_all().failed).encode())
            os._exit(0)
        os.close(other)
        with open(end, encoding="utf-8") as told:
            lines = told.read().splitlines()
        os.waitpid(child, 0)
        assert [line.partition(":")[0] for line in lines] == ["what marks packets", "what shapes nic0"]
        assert remove_all().removed == ("what marked packets", "what shaped nic0")
        assert remove_all() == ((), ())


def test_restore_leaves_the_nics_of_an_agent_that_is_alive_to_it(tmp_path: Path) -> None:
    lock = NodeLock(find_hierarchies("/").walk_root)
    with _network("nic0") as network:
        network.set(_shaping(1e8, "nic0"))
        lock.acquire()
        try:
            done = restore(str(tmp_path))
        finally:
            lock.release()
        assert (done.nics, len(done.warnings)) == ((), 1) and "NICs are let be" in done.warnings[0]
        assert _seen(network)[0] == {"nic0": 1e8}
        assert restore(str(tmp_path)).nics == ("what marked packets", "what shaped nic0")


@pytest.mark.parametrize(
    "values", [{"agent__enforce": '["cpu"]'}, {"agent__mode": "observe"}], ids=["cpu", "observe"]
)
def test_what_a_killed_agent_left_goes_when_the_next_one_does_not_shape(
    tmp_path: Path, values: dict[str, object]
) -> None:
    with lab(nics=1) as made:
        before = made.tc(made.host, "qdisc show dev nic0")
        config = configured(tmp_path, {**ONLINE, "ingress_ratio": 0.8})
        with shaping(made, tmp_path, config) as agent:
            agent.stop(signal.SIGKILL)
        assert BATCH in classes(made)
        with running(tmp_path, config, inside(made.host), **{**SETTINGS, **values}):
            until(lambda: not classes(made), "the tree is gone")
            until(lambda: made.tc(made.host, "qdisc show dev nic0") == before, "all is as it was")
            assert "na-ifb" not in made.tc(made.host, "qdisc show")
