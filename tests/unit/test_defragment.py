"""Defragmentation: only when asked, once, by root; replayed as it was; told as it went."""

from __future__ import annotations

import grp
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.tidied import effect
from nodeagent.defragment import as_text
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import Failed
from nodeagent.model.foreign import Foreign
from nodeagent.model.placement import Move, Tidied
from nodeagent.rpc.client import defragment
from nodeagent.rpc.control import MAX_WAITING
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.nodeagent_pb2_grpc import ControlStub
from tests.unit import samples
from tests.unit.machines import Layout
from tests.unit.rpc_clients import WAIT_S, code, eventually, serving
from tests.unit.test_hands_off import POLICY, pod, seen

TOPOLOGY = Layout(sockets=2, cores=4).topology()  # two NUMA nodes of 4 CPUs


def scattered() -> Memory:
    """Of three pods of 2 CPUs one has left, and a fourth, of 3 CPUs, found room on two nodes only."""
    memory = Memory()
    for seq, who in enumerate(((1, 2, 3), (1, 2, 3), (1, 3), (1, 3, 4), (3, 4), (3, 4))):
        pods = tuple(pod(n, bind=3 if n == 4 else 2) for n in who)
        _, memory = decide(seen(seq, TOPOLOGY, pods, Foreign(), v1=False), POLICY, memory)
    return memory


def after(memory: Memory) -> tuple[Memory, Tick]:
    pods = (pod(3, bind=2), pod(4, bind=3))
    snapshot = replace(seen(6, TOPOLOGY, pods, Foreign(), v1=False), defragment=True)
    decision, then = decide(snapshot, POLICY, memory)
    return then, Tick(snapshot, decision)


def spans(tick: Tick) -> dict[str, int]:
    found = tick.decision.placement
    assert found is not None
    return {placed.uid: len(placed.mems.replace("-", ",").split(",")) for placed in found.bound}


def test_nobody_moves_unless_it_is_asked_for_and_then_once() -> None:
    memory = scattered()
    before = memory.placement
    pods = (pod(3, bind=2), pod(4, bind=3))
    calm, memory_later = decide(seen(6, TOPOLOGY, pods, Foreign(), v1=False), POLICY, memory)
    assert before is not None and calm.placement is not None
    assert calm.placement.bound == before.bound
    then, tick = after(memory)
    assert (
        sum(spans(tick).values()) == 2 < sum(len(p.mems.replace("-", ",").split(",")) for p in before.bound)
    )
    later, _ = decide(seen(7, TOPOLOGY, pods, Foreign(), v1=False), POLICY, then)
    assert tick.decision.placement is not None and later.placement is not None
    assert later.placement.bound == tick.decision.placement.bound
    assert memory_later.placement is not None


def test_what_it_did_is_told_against_the_same_tick_without_it() -> None:
    memory = scattered()
    _, tick = after(memory)
    done = effect(tick.snapshot, POLICY, memory, dry_run=False)
    would = effect(replace(tick.snapshot, defragment=False), POLICY, memory, dry_run=True)
    assert done.moves == would.moves != ()
    assert {move.name for move in done.moves} <= {"pod3", "pod4"}
    assert (done.bound, done.unplaced, done.refused) == (2, 0, "")
    found = tick.decision.placement
    assert found is not None
    for move in done.moves:
        assert move.new_cpus in {placed.cpus for placed in found.bound}


def test_a_tick_that_was_asked_for_is_replayed_as_it_was() -> None:
    memory = scattered()
    _, tick = after(memory)
    recorded = Unpacker().unpack(Packer().pack(tick))
    assert recorded == tick and recorded.snapshot.defragment
    again, _ = decide(recorded.snapshot, POLICY, memory)
    assert again == tick.decision


def test_while_pods_are_not_placed_it_is_refused_with_the_reason() -> None:
    snapshot = seen(0, TOPOLOGY, (pod(1, bind=2),), Foreign(None), v1=False)
    assert "numa.placement" in effect(snapshot, POLICY, Memory(), dry_run=True).refused


MOVE = Move("uid-7", "web", "0,4", "2-3", "0-1", "1")
DONE = Tidied(dry_run=False, bound=2, unplaced=1, moves=(MOVE,), freed_nodes="0", written=True)


@contextmanager
def answering(server: RpcServer, done: Tidied) -> Iterator[list[bool]]:
    """What the agent's loop does with each tick; yields what was asked (dry_run)."""
    asked: list[bool] = []
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(0.01):
            for wanted in server.control.take():
                asked.append(wanted.dry_run)
                wanted.answer(replace(done, dry_run=wanted.dry_run))

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def control(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/control.sock"


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_answer_comes_with_the_tick(tmp_path: Path, dry_run: bool) -> None:
    with (
        serving(f"unix:{tmp_path}/rpc.sock", control=control(tmp_path)) as server,
        answering(server, DONE) as asked,
    ):
        got = defragment(control(tmp_path), dry_run=dry_run, timeout_s=WAIT_S)
    assert got == replace(DONE, dry_run=dry_run)
    assert asked == [dry_run]


def test_only_root_may_open_its_socket_which_goes_with_the_server(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", control=control(tmp_path)):
        found = os.stat(tmp_path / "control.sock")
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == os.geteuid()
    assert list(tmp_path.iterdir()) == []


AS_NOBODY = """
import os, sys
from nodeagent.model.errors import AgentError
from nodeagent.rpc.client import defragment
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    defragment(sys.argv[1], dry_run=True, timeout_s=5.0)
except AgentError as error:
    print(type(error).__name__, error.hint)
"""


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_is_refused_by_the_kernel_itself() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        where = f"unix:{directory}/control.sock"
        with serving(f"unix:{directory}/rpc.sock", control=where) as server, answering(server, DONE):
            assert _as_nobody(where) == "Refused run as root"
            os.chown(f"{directory}/control.sock", 0, 1)
            os.chmod(f"{directory}/control.sock", 0o660)
            group = grp.getgrgid(1).gr_name
            assert _as_nobody(where) == f"Refused run as root, or as a member of the group {group}"


def _as_nobody(address: str) -> str:
    command = [sys.executable, "-c", AS_NOBODY, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split("\n")[0]


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_on_the_address_that_others_reach_it_is_denied(tmp_path: Path, address: str) -> None:
    where = f"unix:{tmp_path}/rpc.sock" if address == "unix" else "127.0.0.1:0"
    with serving(where, control=control(tmp_path)) as server:
        with closing(grpc.insecure_channel(server.address)) as channel:
            stub = ControlStub(channel)
            status, details = code(lambda: stub.Defragment(pb.DefragmentRequest(), timeout=WAIT_S))
        assert server.control.take() == ()
    assert status is grpc.StatusCode.PERMISSION_DENIED
    assert "control.sock" in details


def test_a_client_that_left_before_the_tick_has_asked_for_nothing(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", control=control(tmp_path)) as server:
        with pytest.raises(Failed, match="did not answer within"):
            defragment(control(tmp_path), dry_run=False, timeout_s=0.2)
        assert eventually(lambda: server.control.take() == ())


def test_more_clients_than_may_wait_are_told_so(tmp_path: Path) -> None:
    with (
        serving(f"unix:{tmp_path}/rpc.sock", control=control(tmp_path)) as server,
        closing(grpc.insecure_channel(control(tmp_path))) as channel,
    ):
        stub, request = ControlStub(channel), pb.DefragmentRequest()
        waiting = [stub.Defragment.future(request, timeout=WAIT_S) for _ in range(MAX_WAITING)]
        assert eventually(lambda: len(server.control._waiting) == MAX_WAITING)
        status, _ = code(lambda: stub.Defragment(request, timeout=WAIT_S))
        assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
        for wanted in server.control.take():
            wanted.answer(DONE)
        assert all(call.result(WAIT_S).written for call in waiting)


def test_a_refusal_and_an_agent_that_is_not_there_are_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no agent answers") as absent:
        defragment(control(tmp_path), dry_run=True, timeout_s=WAIT_S)
    assert "nodeagent run" in absent.value.hint
    refused = Tidied(dry_run=True, refused="pods are not placed now")
    with (
        serving(f"unix:{tmp_path}/rpc.sock", control=control(tmp_path)) as server,
        answering(server, refused),
        pytest.raises(Failed, match="not placed") as caught,
    ):
        defragment(control(tmp_path), dry_run=True, timeout_s=WAIT_S)
    assert "numa.placement" in caught.value.hint


def test_a_control_socket_that_cannot_be_made_leaves_the_rest_at_work(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", control=f"unix:{tmp_path}/none/control.sock") as server:
        assert "control.sock" in server.control.closed
        server.publish(samples.tick(1))
        assert eventually(lambda: server.service.latest is not None)


def test_people_are_told_who_moved_from_where_to_where() -> None:
    text = as_text(DONE)
    assert "moved      web: CPUs 0,4 -> 2-3, memory 0-1 -> 1" in text
    assert "freed NUMA nodes 0" in text and "2 bound, 1 without room" in text
    dry = as_text(replace(DONE, dry_run=True, written=False))
    assert "would move web" in dry and "would free" in dry
    assert as_text(Tidied(dry_run=True)).startswith("nothing to move")
    assert "only observes" in as_text(replace(DONE, written=False))
