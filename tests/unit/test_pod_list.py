"""The list over time: renewed, stale, expired, empty, never there; asked in a thread that delays nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.model.errors import Failed
from nodeagent.model.kubernetes import ContainerTold, Enabled, KubernetesSettings, ListState, PodTold
from nodeagent.model.pod import Member, Qos
from nodeagent.pods.kubernetes import KubernetesPods, asked
from nodeagent.pods.lister import PodLister, cri_socket
from nodeagent.pods.recognise import recognise
from tests.live.running import until
from tests.unit.kubelet_samples import UID, V1_20, V1_34, cgroupfs, tree
from tests.unit.kubelet_server import Kubelet, kubelet

WEB, SPARK = UID.format(0), UID.format(1)
SETTINGS = KubernetesSettings(poll_s=0.2, timeout_s=0.5, stale_after_s=100.0)
PATIENCE_S = 3 * 0.2 + 0.5
DIRS = tree(cgroupfs(WEB), cgroupfs(SPARK, "besteffort"))


@pytest.fixture
def server() -> Iterator[Kubelet]:
    with kubelet() as made:
        made.body = V1_20
        yield made


class Node:
    """What the loop does with the list, at times that the test tells."""

    def __init__(self, url: str, settings: KubernetesSettings = SETTINGS) -> None:
        self.lister = PodLister(settings, url, "")
        self.pods = KubernetesPods(settings, self.lister)
        self.walks = 0

    def tick(self, at: float, dirs: tuple[object, ...] = DIRS) -> dict[str, Member]:
        self.walks += self.pods.changed(at)
        members = recognise(dirs, (), {}, self.pods.told(at))  # type: ignore[arg-type]
        self.pods.learn(members)
        return {m.spec.uid: m for m in members}

    def classes(self, at: float) -> dict[str, Qos]:
        return {uid: member.spec.qos for uid, member in self.tick(at).items()}

    def state(self, at: float) -> ListState:
        return self.pods.seen(at).state


@pytest.fixture
def node(server: Kubelet) -> Iterator[Node]:
    made = Node(server.url)
    yield made
    made.pods.close()


def test_until_somebody_has_answered_nobody_is_batch_and_then_all_is_told(
    server: Kubelet, node: Node
) -> None:
    server.hang.set()
    now = time.monotonic()
    assert node.state(now) is ListState.WAITING
    assert node.classes(now) == {WEB: Qos.LS, SPARK: Qos.MID}
    server.hang.clear()
    until(lambda: node.state(time.monotonic()) is ListState.FRESH, "the list")
    now = time.monotonic()
    assert node.pods.changed(now)
    assert node.classes(now) == {WEB: Qos.LS, SPARK: Qos.BATCH}
    assert not node.pods.changed(now)
    seen = node.pods.seen(now)
    assert (seen.source, seen.pods, seen.error) == ("kubelet", 7, "")
    assert [pod for pod, _ in seen.wrong] == ["shop/cache-0"]


def test_a_list_that_says_the_same_again_is_no_news(server: Kubelet, node: Node) -> None:
    node.pods.first()
    node.tick(time.monotonic())
    before = server.asked
    until(lambda: server.asked >= before + 2, "two more lists")
    assert not node.pods.changed(time.monotonic())
    server.body = V1_34
    until(lambda: node.pods.changed(time.monotonic()), "another list")


def test_a_kubelet_that_hangs_delays_nobody_and_its_last_list_holds(server: Kubelet, node: Node) -> None:
    node.pods.first()
    now = time.monotonic()
    assert node.classes(now) == {WEB: Qos.LS, SPARK: Qos.BATCH}
    server.hang.set()
    until(lambda: bool(node.pods.seen(time.monotonic()).error), "the failure is told")
    begin = time.monotonic()
    node.tick(begin)
    assert time.monotonic() - begin < 0.2
    at = node.pods.seen(begin).at
    assert at is not None
    assert node.state(at + PATIENCE_S - 0.1) is ListState.FRESH
    for late, state in ((PATIENCE_S + 0.1, ListState.STALE), (100.1, ListState.EXPIRED)):
        assert node.state(at + late) is state
        assert node.classes(at + late) == {WEB: Qos.LS, SPARK: Qos.BATCH}, state
    assert node.pods.seen(at + 101.0).pods == 0


def test_a_new_pod_is_asked_for_at_once_and_not_batch_before(server: Kubelet) -> None:
    node = Node(server.url, KubernetesSettings(poll_s=600.0))
    try:
        node.pods.first()
        before = server.asked
        node.tick(time.monotonic())
        assert server.asked == before, "all are known"
        new = tree(*(d.path for d in DIRS), cgroupfs(UID.format(11), "besteffort"))
        assert node.tick(time.monotonic(), new)[UID.format(11)].spec.qos is Qos.MID
        until(lambda: server.asked == before + 1, "one more question")
        node.tick(time.monotonic(), new)
        time.sleep(0.5)
        assert server.asked == before + 1, "a pod that stays unknown is not asked for again and again"
    finally:
        node.pods.close()


def test_after_the_list_has_ended_a_living_pod_stays_and_a_new_one_is_not_batch(
    server: Kubelet, node: Node
) -> None:
    node.pods.first()
    node.tick(time.monotonic())
    server.status = 500
    late = time.monotonic() + 1000.0
    made_anew = tree("0", *(d.path for d in DIRS))  # other inodes
    assert node.state(late) is ListState.EXPIRED
    assert node.classes(late) == {WEB: Qos.LS, SPARK: Qos.BATCH}
    again = node.tick(late, made_anew)
    assert (again[SPARK].spec.qos, again[SPARK].spec.name) == (Qos.MID, "pod-11d3b1c8")


def test_an_empty_answer_is_not_believed_while_pods_are_there(server: Kubelet, node: Node) -> None:
    node.pods.first()
    node.tick(time.monotonic())
    for empty in (b'{"kind":"PodList","items":[]}', b'{"kind":"PodList","items":null}'):
        server.body = empty
        until(lambda: "lists no pods" in node.pods.seen(time.monotonic()).error, "the refusal")
        assert node.classes(time.monotonic()) == {WEB: Qos.LS, SPARK: Qos.BATCH}
        server.body = V1_20
        until(lambda: not node.pods.seen(time.monotonic()).error, "the list again")
    node.tick(time.monotonic(), ())
    server.body = b'{"kind":"PodList","items":[]}'
    until(lambda: node.pods.seen(time.monotonic()).pods == 0, "a node without pods")


@pytest.mark.parametrize("bad", [b"garbage", b"", V1_20[: len(V1_20) // 2]])
def test_a_bad_answer_keeps_the_good_one(server: Kubelet, node: Node, bad: bytes) -> None:
    node.pods.first()
    node.tick(time.monotonic())
    server.body = bad
    until(lambda: bool(node.pods.seen(time.monotonic()).error), "the failure")
    assert node.classes(time.monotonic()) == {WEB: Qos.LS, SPARK: Qos.BATCH}


def test_where_nobody_ever_answered_paths_tell_and_the_reason_is_told() -> None:
    node = Node("http://127.0.0.1:1")
    try:
        node.pods.first()
        now = time.monotonic()
        assert node.classes(now) == {WEB: Qos.LS, SPARK: Qos.BATCH}
        seen = node.pods.seen(now)
        assert (seen.source, seen.state, seen.at) == ("paths", ListState.NEVER, None)
        assert "127.0.0.1:1" in seen.error and "kubelet_url" in seen.error
    finally:
        node.pods.close()


@pytest.mark.parametrize("said", [{"enabled": Enabled.ON}, {"kubelet_url": "http://127.0.0.1:1"}])
def test_while_a_kubelet_that_is_configured_has_not_answered_nobody_is_batch(said: dict[str, object]) -> None:
    """As after a restart of the agent beside a kubelet that is down: labels may say otherwise."""
    node = Node("http://127.0.0.1:1", replace(SETTINGS, **said))
    try:
        node.pods.first()
        now = time.monotonic()
        assert node.classes(now) == {WEB: Qos.LS, SPARK: Qos.MID}
        seen = node.pods.seen(now)
        assert seen.state is ListState.WAITING and "127.0.0.1:1" in seen.error
    finally:
        node.pods.close()


class FromRuntime(PodLister):
    """The runtime's answer as given; the kubelet is a real one."""

    told: tuple[PodTold, ...] = ()

    def _ask_runtime(self) -> tuple[tuple[PodTold, ...], str]:
        if not self.told:
            raise Failed("no runtime")
        return tuple(self._with_details(pod) for pod in self.told), ""


def test_the_runtime_stands_in_and_what_the_kubelet_said_is_not_forgotten(server: Kubelet) -> None:
    lister = FromRuntime(SETTINGS, server.url, "/run/na.sock")
    assert lister.ask().source == "kubelet"
    server.status = 500
    none = lister.ask()
    assert "500" in none.error and "no runtime" in none.error
    lister.told = (
        PodTold(uid=WEB, namespace="shop", name="web", containers=(ContainerTold("1", "app", 7),)),
        PodTold(uid="new", namespace="shop", name="new", qos=Qos.BATCH),
    )
    listing = lister.ask()
    assert listing.source == "cri" and "500" in listing.error
    web, new = listing.pods
    assert (web.name, web.cpus, web.numa_bind) == ("web-7c5d9b6f4-x2x9k", 2.0, True)
    assert web.containers == (ContainerTold("1", "app", 7),)
    assert (new.name, new.qos) == ("new", Qos.BATCH)


def test_who_is_asked_on_which_node(tmp_path: Path) -> None:
    def who(kubelet_dir: str = "", **values: object) -> tuple[str, str]:
        none = {"token_file": str(tmp_path / "none"), **values}
        return asked(KubernetesSettings(**none), str(tmp_path), kubelet_dir, {})  # type: ignore[arg-type]

    here = str(tmp_path)
    assert who() == ("", "")
    assert who(kubelet_dir=f"{here}/none") == ("", "")
    assert who(kubelet_dir=here) == ("http://127.0.0.1:10255", "")
    assert who(enabled=Enabled.ON) == ("http://127.0.0.1:10255", "")
    assert who(kubelet_dir=here, enabled=Enabled.OFF, cri_endpoint="unix:///x") == ("", "")
    assert who(cri_endpoint="unix:///x/y.sock") == ("", "/x/y.sock"), "a runtime without a kubelet"
    assert who(kubelet_url="https://node-7:10250")[0] == "https://node-7:10250"
    (tmp_path / "run/crio").mkdir(parents=True)
    (tmp_path / "run/crio/crio.sock").touch()
    assert who(kubelet_dir=here)[1] == f"{here}/run/crio/crio.sock"
    assert cri_socket("", here) == ""
