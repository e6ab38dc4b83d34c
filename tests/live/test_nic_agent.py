"""The agent shapes real traffic on a real wire: whose packet is in which class, and who waits for whom."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.model.pod import Qos
from tests.live.nic_agent import BATCH, LS, MID, lost, shaping, until_classified, until_open
from tests.live.nic_crowd import Crowd, crowd
from tests.live.nic_lab import GIGABIT, Lab, Pod, Way, classes, lab
from tests.live.nic_loads import Load, Place, load, mbit_per_s
from tests.live.running import SLOWNESS, RunningAgent, unique, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
PORT = 7000
CLASSES = {"ls": LS, "mid": MID, "batch": BATCH}
HOST = "host process"
QOS = (Qos.LS, Qos.MID, Qos.BATCH)
PODS = int(os.environ.get("NODEAGENT_TEST_PODS", "100"))


def _settled_fds(agent: RunningAgent, staying: set[str]) -> int:
    """As many as stay so for some ticks."""
    seen = [_fds(agent, staying)]

    def stay() -> bool:
        time.sleep(1.0)
        seen.append(_fds(agent, staying))
        return len(set(seen[-4:])) == 1 and len(seen) >= 4

    until(stay, "the descriptors stay as many")
    return seen[-1]


@contextlib.contextmanager
def _sink(made: Lab, port: int = PORT) -> Iterator[Load]:
    with load(Place(made.peer), "sink", port) as sink:
        yield sink


def _only(made: Lab, name: str) -> None:
    """50 more packets are in this class, and next to none in the other ones."""
    before = classes(made)
    until_classified(made, name)
    after = classes(made)
    more = {each: after[each].packets - before[each].packets for each in CLASSES.values()}
    others = sum(packets for each, packets in more.items() if each != name)
    assert others <= more[name] / 10, f"{name}: {more}"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", [HOST, *Way])
def test_the_packets_of_each_pod_are_in_its_class(tmp_path: Path, way: str, family: int) -> None:
    with lab(bridged=way == Way.BRIDGED) as made, shaping(made, tmp_path), _sink(made) as sink:
        for qos, name in CLASSES.items():
            namespace = made.host if way == HOST else made.pod(Way(way)).namespace
            place = Place(namespace, qos, qos, tmp_path / "exec")
            with load(place, "send", made.service().of(family), PORT, 2, 20):
                until(lambda: sink.tell()["bytes"] > 0, "traffic")
                until_classified(made, name)
                _only(made, name)


@pytest.mark.parametrize(("way", "family"), [(HOST, 6), (Way.ROUTED, 4), (Way.BRIDGED, 4)])
def test_ls_waits_for_no_queue_of_batch(tmp_path: Path, way: str, family: int) -> None:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(lab(bridged=way == Way.BRIDGED))
        pods = None if way == HOST else [made.pod(Way(way)) for _ in range(2)]
        spaces = [pod.namespace for pod in pods] if pods else [made.host] * 2
        address = pods[0].address if pods else made.host_address()
        ls, batch = (
            Place(space, qos, qos, tmp_path / "exec")
            for space, qos in zip(spaces, ("ls", "batch"), strict=True)
        )
        stack.enter_context(load(ls, "serve", PORT))
        asking = stack.enter_context(load(Place(made.peer), "ask", address.of(family), PORT, 300, 8000))
        sink = stack.enter_context(_sink(made, PORT + 1))
        stack.enter_context(load(batch, "send", made.service().of(family), PORT + 1, 4, 0))
        until(lambda: sink.tell()["bytes"] > 1e8, "the wire is full")
        unshaped = _asked(asking)
        with shaping(made, tmp_path):
            until_classified(made, BATCH)
            until_open(made, 0.95 * GIGABIT)
            _asked(asking, 200)
            before = sink.tell()
            shaped = _asked(asking)
            batch_mbit_per_s = mbit_per_s(before, sink.tell())
        better = 5 if SLOWNESS == 1 else 3  # in emulation much of the waiting is for the CPU
        assert shaped["p50_ms"] < unshaped["p50_ms"] / better, (shaped, unshaped)
        assert shaped["lost"] == 0
        assert batch_mbit_per_s > 700 / SLOWNESS


def _asked(asking: Load, requests: int = 600) -> dict[str, float]:
    """The figures of so many requests from now on."""
    asking.tell()

    def seen() -> float:
        figures = asking.tell("look")
        return figures["answers"] + figures["late"]

    until(lambda: seen() >= requests, "answers", 60.0)
    return asking.tell()


def _present(agent: RunningAgent) -> set[str]:
    """The pods of this test that the agent has seen come, and not go."""
    seen, gone = ({event["pod"] for event in agent.named(name)} for name in ("pod.appeared", "pod.vanished"))
    return {pod for pod in seen - gone if pod.startswith(unique(""))}


def _fds(agent: RunningAgent, staying: set[str]) -> int:
    """Descriptors, without the files of pods that stay: those are opened only when their turn comes."""
    count = 0
    for descriptor in Path(f"/proc/{agent.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was that of the moment
            count += staying.isdisjoint(descriptor.readlink().parts)
    return count


@contextlib.contextmanager
def _ls_packets(made: Lab, home: Path) -> Iterator[Load]:
    """Numbered datagrams of an LS process; nothing of them may be missing."""
    place = Place(made.host, "ls", "numbers", home / "exec")
    with (
        load(Place(made.peer), "collect", PORT) as collecting,
        load(place, "emit", made.service().v4, PORT, 1000),
    ):
        until(lambda: collecting.tell()["received"] > 100, "datagrams")
        yield collecting


def _come_and_go(there: Crowd, count: int) -> None:
    """So many pods, of which the oldest leaves while the newest arrives; those who were there before stay."""
    before = len(there.here)
    for number in range(count):
        there.arrive(QOS[number % 3])
        if number >= count // 5:
            there.leave(there.here[before])
    while len(there.here) > before:
        there.leave(there.here[-1])


def test_pods_arrive_and_leave_and_no_packet_of_ls_is_lost(tmp_path: Path) -> None:
    with (
        lab() as made,
        shaping(made, tmp_path) as agent,
        _ls_packets(made, tmp_path) as numbers,
        crowd(made) as there,
    ):
        for qos in QOS:
            there.arrive(qos)
        _come_and_go(there, 10)
        until(lambda: len(_present(agent)) == 4, "all have left but three and the one that sends")
        staying = _present(agent)
        names, descriptors = sorted(classes(made)), _settled_fds(agent, staying)
        _come_and_go(there, PODS)
        until(lambda: _present(agent) == staying, "all of many have left, too")
        assert numbers.tell()["received"] > 1000
        assert lost(numbers) == 0
        assert sorted(classes(made)) == names
        until(lambda: _fds(agent, staying) <= descriptors, f"no more than {descriptors} descriptors")


def test_the_address_of_a_batch_pod_that_has_left_is_free_for_others(tmp_path: Path) -> None:
    with lab() as made, shaping(made, tmp_path), crowd(made) as there, _sink(made):
        batch = there.arrive(Qos.BATCH)
        to = made.service().v4
        with load(Place(batch.net.namespace), "send", to, PORT, 1, 5):  # in no cgroup: told by its address
            until_classified(made, BATCH)
        there.leave(batch)
        other = _same_address(made, batch.net)
        with load(Place(other), "send", to, PORT, 1, 5):
            until_classified(made, LS)
            _only(made, LS)


def _same_address(made: Lab, old: Pod) -> str:
    """A namespace of nobody's that has the address of the pod that was."""
    new = made.pod()
    made.ip(made.host, f"route add {old.address.v4}/32 dev {new.veth}")
    made.ip(
        new.namespace,
        f"address add {old.address.v4}/32 dev eth0",
        f"address delete {new.address.v4}/32 dev eth0",
        "route replace 0.0.0.0/0 via 169.254.1.1 dev eth0 onlink",
    )
    return new.namespace


def test_a_pod_whose_cgroup_is_made_anew_is_still_in_its_class(tmp_path: Path) -> None:
    """The cgroup's id is another one then, though its path is the same."""
    with lab() as made, shaping(made, tmp_path), _sink(made):
        for _ in range(3):
            place = Place(made.host, "batch", "again", tmp_path / "exec")
            with load(place, "send", made.service().v6, PORT, 1, 20):
                until_classified(made, BATCH)
                _only(made, BATCH)
