"""The fast lane on captured trees: which files a look reads, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.reader import NodeReader
from nodeagent.lane import MOST, Lane
from nodeagent.model.pod import Member, PodSpec, Qos
from tests.unit import trees

CG = "sys/fs/cgroup"
NODE, ABOVE = "proc/pressure/cpu", f"{CG}/kubepods/burstable/cpu.pressure"
RATIO = 0.2


class Node:
    """A v2 node with one LS pod whose pressure files can be moved on."""

    def __init__(self, root: Path, machine: trees.Tree = trees.V2, hierarchy: str = CG) -> None:
        self.root = root
        trees.plant(root, {**machine, ABOVE: trees.pressure(1000, 0)})
        self.reader = NodeReader(str(root))
        self.lane = Lane(self.reader, str(root / NODE))
        self.members: tuple[Member, ...] = (trees.member(root, hierarchy),)
        self.now_us = {NODE: 500, ABOVE: 1000}

    def waits(self, more_us: int, *paths: str) -> None:
        for path in (NODE, ABOVE, *paths):
            self.now_us[path] = self.now_us.get(path, 1000) + more_us
            (self.root / path).write_text(trees.pressure(self.now_us[path], 0))

    def tick(self, at: float) -> list[str]:
        self.lane.ticking(at, RATIO)
        self.reader.read(self.members, at)
        return [stalled.uid for stalled in self.lane.ticked(at, RATIO)]

    def look(self, at: float) -> list[str]:
        return [stalled.uid for stalled in self.lane.look(at, RATIO)]


POD = f"{CG}/{trees.POD}/cpu.pressure"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.tick(100.0)
    yield made
    made.lane.close()
    made.reader.close()
    assert made.reader.kept == 0


def test_a_pod_that_waits_is_seen_within_two_looks(node: Node) -> None:
    assert node.look(100.8) == []
    node.waits(45_000, POD)
    assert node.look(100.9) == []
    node.waits(45_000, POD)
    assert node.look(101.0) == [trees.POD]


def test_the_tick_that_comes_early_for_it_sees_it_too(node: Node) -> None:
    node.look(100.8)
    node.waits(90_000, POD)
    assert node.look(100.9) == [trees.POD]
    assert node.tick(100.901) == [trees.POD]
    assert node.look(101.2) == [], "it has not waited since"


def test_a_regular_tick_sees_a_surge_that_no_look_has_seen(node: Node) -> None:
    node.look(100.9)
    node.waits(80_000, POD)
    assert node.tick(101.0) == [trees.POD]


def test_on_a_calm_node_a_look_reads_no_pod(node: Node) -> None:
    assert node.look(100.1) == []
    assert node.lane.looked_at == 0


def test_while_all_above_wait_little_no_pod_below_is_read(node: Node) -> None:
    node.look(100.1)
    (node.root / NODE).write_text(trees.pressure(300_000, 0))  # Batch waits, as on every full node
    assert node.look(100.2) == []
    assert node.lane.looked_at == 0


def test_what_the_pod_waited_in_the_calm_before_is_not_taken_for_a_surge(node: Node) -> None:
    for tenth in range(1, 9):
        node.waits(9_000, POD)
        assert node.look(100.0 + tenth / 10) == []
    assert node.lane.looked_at == 0, "the gate never opened"
    node.waits(30_000, POD)
    assert node.look(100.9) == []


def test_what_its_own_quota_stopped_is_not_seen_as_a_surge(node: Node) -> None:
    stat = node.root / CG / trees.POD / "cpu.stat"
    text = stat.read_text()
    node.look(100.8)
    node.waits(90_000, POD)
    stat.write_text(text.replace("throttled_usec 9000", "throttled_usec 95000"))
    assert node.look(100.9) == []


def test_blind_is_calm_and_no_error(node: Node) -> None:
    node.look(100.8)
    node.waits(90_000, POD)
    (node.root / POD).write_text("nothing that a kernel says\n")
    assert node.look(100.9) == []
    (node.root / ABOVE).write_text("")
    assert node.look(101.0) == []
    (node.root / NODE).unlink()
    (node.root / NODE).write_text("some")
    assert node.look(101.1) == []


def test_a_pod_without_pressure_of_its_own_is_seen_by_its_threads(tmp_path: Path) -> None:
    node = Node(tmp_path, trees.V1, f"{CG}/cpu")
    node.tick(100.0)
    node.look(100.8)
    (tmp_path / NODE).write_text(trees.pressure(100_000, 0))
    (tmp_path / "proc/100/schedstat").write_text("9000000 92500000 12\n")
    assert node.look(100.9) == [trees.POD]
    node.lane.close()
    node.reader.close()


def test_of_more_pods_than_a_look_is_worth_all_have_their_turn_and_those_that_wait_are_not_left_out(
    tmp_path: Path,
) -> None:
    names = [f"kubepods/burstable/many{number}" for number in range(3 * MOST)]
    files = {f"{CG}/{name}/cpu.pressure": trees.pressure(1000, 0) for name in names}
    node = Node(tmp_path, trees.V2 | files)
    node.members = tuple(
        Member(
            PodSpec(
                uid=name,
                name=name,
                cgroup=name,
                inode=(tmp_path / CG / name).stat().st_ino,
                qos=Qos.LS,
                source="rule",
            )
        )
        for name in names
    )
    node.tick(100.0)
    seen = set()
    for look in range(1, 8):
        node.waits(60_000, *(f"{CG}/{name}/cpu.pressure" for name in names))
        found = node.look(100.0 + look / 10)
        assert len(found) <= MOST
        seen |= set(found)
    assert seen == set(names)
    node.lane.close()
    node.reader.close()


def test_a_pod_that_goes_leaves_nothing_open(node: Node) -> None:
    node.look(100.8)
    node.waits(90_000, POD)
    node.look(100.9)
    node.members = ()
    assert node.tick(101.0) == []
    node.waits(90_000)
    assert node.look(101.1) == []
    assert node.lane.looked_at == 0
