"""ApplyDirective and ListDirectives on a real server, and `nodeagent direct` that calls them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.directives import Directives
from nodeagent.model.directive import Directive, Refused
from nodeagent.model.settings import DirectiveSettings
from nodeagent.rpc.caller import Access
from nodeagent.rpc.directed import directive_message, directive_of, status_message, status_of
from nodeagent.rpc.directing import result
from nodeagent.rpc.server import RpcServer
from nodeagent.v1 import nodeagent_pb2 as pb
from nodeagent.v1.directive_pb2 import (
    DIRECTIVE_STATE_ENDED,
    DIRECTIVE_STATE_IN_FORCE,
    MODE_ENFORCE,
    MODE_OBSERVE,
    EndDirective,
    HoldCapacity,
    LendNode,
    RecallNode,
    SetMode,
)
from nodeagent.v1.directive_pb2 import Directive as Message
from tests.unit import samples
from tests.unit.rpc_clients import WAIT_S, client, code, serving

LEASE = duration_pb2.Duration(seconds=60)
HOLD = Message(id="h", lease=LEASE, reason="night", hold_capacity=HoldCapacity(cpu_cores=2.0))


class Serving(NamedTuple):
    server: RpcServer
    directives: Directives
    stub: Any


@contextmanager
def _serving(home: Path, address: str, *, enforcing: bool = True) -> Iterator[Serving]:
    given = DirectiveSettings(max_lease_s=3600.0)
    with (
        closing(Directives(str(home), "boot-1", given, enforcing=enforcing)) as directives,
        serving(address, directives=directives, access=Access(director_uids=(os.getuid(),))) as server,
        client(server) as stub,
    ):
        server.publish(samples.tick(1))
        yield Serving(server, directives, stub)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock") as running:
        yield running


def apply(served: Serving, message: Message, *, dry_run: bool = False) -> pb.ApplyDirectiveResponse:
    request = pb.ApplyDirectiveRequest(directive=message, dry_run=dry_run)
    answer: pb.ApplyDirectiveResponse = served.stub.ApplyDirective(request, timeout=WAIT_S)
    return answer


def known(served: Serving) -> list[Any]:
    return list(served.stub.ListDirectives(pb.ListDirectivesRequest(), timeout=WAIT_S).directives)


def test_plain_tcp_tells_nobody_s_name_so_nobody_directs_there(tmp_path: Path) -> None:
    with _serving(tmp_path, "127.0.0.1:0") as served:
        status, details = code(lambda: apply(served, HOLD))
        assert status is grpc.StatusCode.PERMISSION_DENIED
        assert "grpc.directors" in details
        assert not known(served)


def test_a_directive_is_taken_listed_and_the_same_one_changes_nothing(served: Serving) -> None:
    before = time.time()
    answer = apply(served, HOLD)
    assert not answer.already_taken
    assert answer.status.directive == HOLD
    assert answer.status.issuer == f"uid:{os.getuid()} pid:{os.getpid()}"
    assert answer.status.state == DIRECTIVE_STATE_IN_FORCE
    taken, ends = answer.status.taken_at.ToNanoseconds() / 1e9, answer.status.ends_at.ToNanoseconds() / 1e9
    assert before - 1e-3 <= taken <= time.time() and ends - taken == pytest.approx(60.0, abs=1e-5)
    again = apply(served, HOLD)
    assert again.already_taken and again.status == answer.status
    assert known(served) == [answer.status]
    other = Message(id="h", lease=LEASE, lend_node=LendNode())
    status, said = code(lambda: apply(served, other))
    assert status is grpc.StatusCode.ALREADY_EXISTS and "h" in said
    assert known(served) == [answer.status]
    ended = apply(served, Message(id="e", end_directive=EndDirective(id="h")))
    assert ended.status.state == DIRECTIVE_STATE_ENDED
    assert [s.state for s in known(served)] == [DIRECTIVE_STATE_ENDED] * 2


def test_a_dry_run_says_what_would_come_of_it_and_does_nothing(served: Serving) -> None:
    assert apply(served, HOLD, dry_run=True).status.state == DIRECTIVE_STATE_IN_FORCE
    assert known(served) == []
    status, said = code(lambda: apply(served, Message(id="x"), dry_run=True))
    assert status is grpc.StatusCode.INVALID_ARGUMENT and said.startswith("order: ")


def _lease(seconds: int, nanos: int = 0) -> Message:
    return Message(id="x", lease=duration_pb2.Duration(seconds=seconds, nanos=nanos), lend_node=LendNode())


def _hold(**amounts: float) -> Message:
    return Message(id="x", lease=LEASE, hold_capacity=HoldCapacity(**amounts))  # type: ignore[arg-type]


def _recall(**at: int) -> Message:
    return Message(id="x", lease=LEASE, recall_node=RecallNode(deadline=timestamp_pb2.Timestamp(**at)))


MALFORMED = {
    "id": Message(lease=LEASE, lend_node=LendNode()),
    "id: ": Message(id="no blanks", lease=LEASE, lend_node=LendNode()),
    "reason": Message(id="x", lease=LEASE, reason="r" * 257, lend_node=LendNode()),
    "lease": Message(id="x", lend_node=LendNode()),
    "lease: ": _lease(3601),
    "lease: takes": _lease(-1),
    "lease: is": _lease(1, 2**31 - 1),
    "lease: is not": _lease(1, -1),
    "order": Message(id="x", lease=LEASE),
    "set_mode.mode": Message(id="x", lease=LEASE, set_mode=SetMode()),
    "set_mode.mode: ": Message(id="x", lease=LEASE, set_mode=SetMode(mode=17)),  # type: ignore[arg-type]
    "hold_capacity": _hold(),
    "hold_capacity.cpu_cores": _hold(cpu_cores=-1.0),
    "hold_capacity.cpu_cores: ": _hold(cpu_cores=float("nan")),
    "hold_capacity.cpu_cores: takes": _hold(cpu_cores=float("inf"), memory_bytes=1),
    "recall_node.deadline": Message(id="x", lease=LEASE, recall_node=RecallNode()),
    "recall_node.deadline: ": _recall(seconds=4_000_000_000),
    "recall_node.deadline: is": _recall(seconds=-(2**62)),
    "end_directive.id": Message(id="x", end_directive=EndDirective(id="")),
}


def test_what_is_malformed_is_refused_with_the_field_and_nothing_changes(tmp_path: Path) -> None:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock") as served:
        for field, message in MALFORMED.items():
            status, said = code(partial(apply, served, message))
            assert status is grpc.StatusCode.INVALID_ARGUMENT, said
            assert said.startswith(field), said
        for request in (b"\xff", b""):
            raw = grpc.insecure_channel(served.server.address)
            with closing(raw) as channel:
                call = channel.unary_unary("/nodeagent.v1.NodeAgent/ApplyDirective")
                status, _ = code(partial(call, request, timeout=WAIT_S))
                assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert known(served) == []
        assert not (tmp_path / "directives").exists()
        assert len(served.directives.news()[1]) == 16, "the latest are on record"


def test_what_does_not_fit_here_has_a_code_of_its_own(tmp_path: Path) -> None:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock", enforcing=False) as served:
        enforce = Message(id="x", lease=LEASE, set_mode=SetMode(mode=MODE_ENFORCE))
        status, said = code(lambda: apply(served, enforce))
        assert status is grpc.StatusCode.FAILED_PRECONDITION and "agent.mode" in said
        status, said = code(lambda: apply(served, Message(id="x", end_directive=EndDirective(id="y"))))
        assert status is grpc.StatusCode.NOT_FOUND
        apply(served, Message(id="x", lease=LEASE, set_mode=SetMode(mode=MODE_OBSERVE)))


def test_before_the_first_tick_no_directive_is_taken(tmp_path: Path) -> None:
    given = DirectiveSettings()
    with (
        closing(Directives(str(tmp_path), "boot-1", given, enforcing=True)) as directives,
        serving(f"unix:{tmp_path}/rpc.sock", directives=directives) as server,
        client(server) as stub,
    ):
        request = pb.ApplyDirectiveRequest(directive=HOLD)
        assert code(lambda: stub.ApplyDirective(request, timeout=WAIT_S))[0] is grpc.StatusCode.UNAVAILABLE
        assert directives.known() == ()


def test_many_at_once_are_taken_one_by_one(served: Serving) -> None:
    requests = [
        pb.ApplyDirectiveRequest(directive=Message(id=f"n{n % 10}", lease=LEASE, lend_node=LendNode()))
        for n in range(30)
    ]
    calls = [served.stub.ApplyDirective.future(request, timeout=WAIT_S) for request in requests]
    answers = [call.result() for call in calls]
    assert sum(not answer.already_taken for answer in answers) == 10
    assert [s.state for s in known(served)].count(DIRECTIVE_STATE_IN_FORCE) == 1


def test_on_a_controllers_stream_the_answers_are_the_same(tmp_path: Path) -> None:
    given = DirectiveSettings()
    with closing(Directives(str(tmp_path), "boot-1", given, enforcing=True)) as directives:
        answers = [
            asyncio.run(result(directives, message, "controller:127.0.0.1:9470"))
            for message in (
                HOLD,
                HOLD,
                Message(id="h", lease=LEASE, lend_node=LendNode()),
                Message(id="y" * 999),
            )
        ]
        (known,) = directives.known()
    assert [answer.code for answer in answers] == [0, 0, 6, 3]
    assert answers[0] == answers[1] and answers[0].status == status_message(known)
    assert known.issuer == "controller:127.0.0.1:9470"
    assert answers[3].message.startswith("order: ") and len(answers[3].id) == 128


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(st.binary(max_size=120))
def test_no_bytes_make_the_conversion_fail(data: bytes) -> None:
    message = Message()
    try:
        message.ParseFromString(data)
    except Exception:  # what does not parse never comes here
        return
    directive = directive_of(message)
    if isinstance(directive, Directive):
        assert directive_message(directive).WhichOneof("order") == message.WhichOneof("order")
    else:
        assert isinstance(directive, Refused)


def test_a_status_survives_the_wire(tmp_path: Path) -> None:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock") as served:
        for number, order in enumerate(
            ({"hold_capacity": HoldCapacity(memory_bytes=2**63)}, {"lend_node": LendNode()})
        ):
            apply(served, Message(id=f"n{number}", lease=LEASE, **order))  # type: ignore[arg-type]
        for status in served.directives.known():
            back = status_of(status_message(status))
            assert (back.directive, back.issuer, back.state) == (
                status.directive,
                status.issuer,
                status.state,
            )


def direct(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodeagent", "direct", *words]
    where = ["--set", f"grpc.address=unix:{home}/rpc.sock"]
    return subprocess.run([*command, *where], capture_output=True, text=True, check=False, timeout=60)


def test_the_command_asks_lists_and_ends(tmp_path: Path) -> None:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock"):
        held = direct(tmp_path, "hold", "--cpu", "4", "--memory", "8GiB", "--for", "30m", "--id", "h")
        assert held.returncode == 0, held.stderr
        assert held.stdout.startswith("taken: hold at 4 cores, 8 GiB until ") and held.stdout.endswith(
            ", id h\n"
        )
        again = direct(
            tmp_path, "hold", "--cpu", "4", "--memory", "8GiB", "--for", "30m", "--id", "h", "-o", "json"
        )
        assert json.loads(again.stdout)["already_taken"] is True
        listed = direct(tmp_path, "list").stdout.splitlines()
        assert listed[0].split() == ["ID", "STATE", "LEFT", "ISSUER", "WHAT", "REASON"]
        assert listed[1].startswith("h   in force  ") and "hold at 4 cores, 8 GiB" in listed[1]
        recalled = direct(
            tmp_path, "recall", "--by", "10m", "--for", "1h", "--reason", "deploy", "-o", "json"
        )
        status = json.loads(recalled.stdout)["status"]
        order = status["directive"]["order"]
        assert order["deadline_unix"] - status["taken_unix"] == pytest.approx(600, abs=30)
        assert len(status["directive"]["id"]) == 16
        ended = direct(tmp_path, "end", "h")
        assert ended.returncode == 0 and ended.stdout.startswith("taken: end h, id ")
        states = {
            s["directive"]["id"]: s["state"]
            for s in json.loads(direct(tmp_path, "list", "-o", "json").stdout)
        }
        assert states["h"] == "ended" and states[status["directive"]["id"]] == "in_force"


@pytest.mark.parametrize(
    ("words", "exit_status", "said"),
    [
        (("observe",), 2, "missing option '--for'"),
        (("observe", "--for", "ten"), 2, "not a duration: 'ten'"),
        (("hold", "--for", "1m"), 2, "give --cpu, --memory or both"),
        (("hold", "--cpu", "-1", "--for", "1m"), 2, "not a number of cores"),
        (("lend", "--for", "2h"), 1, "the agent refused: lease: takes more than 0 and at most 3600 s here"),
        (("lend", "--for", "1m", "--id", "a b"), 1, "the agent refused: id: takes"),
        (("recall", "--by", "20m", "--for", "10m"), 1, "recall_node.deadline: is after the end of the lease"),
        (("end", "nobody"), 1, "no directive nobody is known (NOT_FOUND)"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, words: tuple[str, ...], exit_status: int, said: str
) -> None:
    with _serving(tmp_path, f"unix:{tmp_path}/rpc.sock"):
        done = direct(tmp_path, *words)
    assert done.returncode == exit_status
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
