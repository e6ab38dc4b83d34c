"""What the reference controller serves: the view, directives for nodes, /metrics, and tables."""

from __future__ import annotations

import json
import os
import pty
import queue
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.decision import Tick
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from tests.unit import cluster_nodes as nodes
from tests.unit.collecting import COLLECT, Controller, collecting, counted, reporting
from tests.unit.rpc_clients import WAIT_S, code, eventually, offering, serving

NO_LOOK = ("--http", "")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with collecting(
        tmp_path_factory.mktemp("collect"), "--metrics-nodes", "3", "--directors", "loopback"
    ) as controller:
        yield controller


def order(name: str) -> directive_pb.Directive:
    return directive_pb.Directive(id=name, lease=Duration(seconds=60), lend_node=directive_pb.LendNode())


def sending(
    controller: Controller, node: str, directive: directive_pb.Directive, timeout_s: float = WAIT_S
) -> Callable[[], pb.SendDirectiveResponse]:
    request = pb.SendDirectiveRequest(node_name=node, directive=directive)
    return lambda: controller.cluster.SendDirective(request, timeout=timeout_s)


def test_a_directive_goes_down_the_stream_and_what_became_of_it_comes_back(shared: Controller) -> None:
    with reporting(shared, "directed", "other") as (agent, other):
        agent.offer(1, 4.0)
        other.offer(1, 4.0)
        request = pb.SendDirectiveRequest(node_name="directed", directive=order("d1"))
        asked = shared.cluster.SendDirective.future(request, timeout=WAIT_S)
        assert next(agent.call).directive == order("d1")
        status = directive_pb.DirectiveStatus(directive=order("d1"), issuer="controller:x")
        agent.send(pb.ReportRequest(directive_result=pb.DirectiveResult(id="unasked", code=3)))
        agent.send(pb.ReportRequest(directive_result=pb.DirectiveResult(id="d1", status=status)))
        assert asked.result().status == status


def test_what_the_agent_refuses_is_refused_with_its_own_code_and_words(shared: Controller) -> None:
    with reporting(shared, "refusing") as (agent,):
        agent.offer(1, 4.0)
        request = pb.SendDirectiveRequest(node_name="refusing", directive=order("d2"))
        asked = shared.cluster.SendDirective.future(request, timeout=WAIT_S)
        next(agent.call)
        result = pb.DirectiveResult(id="d2", code=3, message="lease: above 0")
        agent.send(pb.ReportRequest(directive_result=result))
        assert code(asked.result) == (grpc.StatusCode.INVALID_ARGUMENT, "lease: above 0")


def test_a_directive_for_a_node_that_is_not_there_is_refused_at_once(shared: Controller) -> None:
    with reporting(shared, "left") as (agent,):
        agent.offer(1, 4.0)
    assert eventually(lambda: not shared.node("left").connected)  # type: ignore[union-attr]
    assert code(sending(shared, "nowhere", order("d")))[0] is grpc.StatusCode.NOT_FOUND
    assert code(sending(shared, "left", order("d"))) == (grpc.StatusCode.UNAVAILABLE, "left is not connected")
    assert code(sending(shared, "left", order(""))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "directive.id: not 1 to 128 characters",
    )


def test_without_leave_nobody_directs_over_loopback_and_the_agent_hears_nothing(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller, reporting(controller, "a") as (agent,):
        agent.offer(1, 4.0)
        status, details = code(sending(controller, "a", order("d")))
        assert status is grpc.StatusCode.PERMISSION_DENIED
        assert "--directors takes" in details
        agent.send(
            nodes.heartbeat(0, time.time())
        )  # out of order: the first that comes down is the answer to it
        assert next(agent.call) == pb.ReportResponse(resync=pb.Resync())


def test_over_a_unix_socket_its_users_direct(tmp_path: Path) -> None:
    listen = ("--listen", f"unix:{tmp_path}/s")
    with collecting(tmp_path, *listen) as controller, reporting(controller, "a") as (agent,):
        agent.offer(1, 4.0)
        assert code(sending(controller, "a", order("d"), 0.5))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert next(agent.call).directive == order("d")


def test_an_agent_that_does_not_answer_or_leaves_meanwhile_holds_up_nobody(shared: Controller) -> None:
    with reporting(shared, "slow", "good") as (slow, good):
        slow.offer(1, 4.0)
        assert code(sending(shared, "slow", order("d3"), 0.5))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = [
            shared.cluster.SendDirective.future(
                pb.SendDirectiveRequest(node_name="slow", directive=order(f"d{number}")), timeout=WAIT_S
            )
            for number in range(4, 8)
        ]
        good.offer(1, 4.0)
        slow.close()
        answers = [code(each.result) for each in waiting]
        assert {status for status, _ in answers} == {grpc.StatusCode.UNAVAILABLE}, answers


def test_watchers_get_the_view_again_and_again_and_one_that_does_not_read_disturbs_nobody(
    shared: Controller,
) -> None:
    with reporting(shared, "watched") as (agent,):
        agent.offer(1, 4.0)
        unread = shared.cluster.WatchView(pb.WatchViewRequest(nodes=True), timeout=60.0)
        watch = shared.cluster.WatchView(pb.WatchViewRequest(), timeout=60.0)
        begin = time.monotonic()
        views = [next(watch).view for _ in range(3)]
        assert 1.5 < time.monotonic() - begin < 1.5 + WAIT_S  # at most one a second
        assert views[0].made_at.ToNanoseconds() < views[2].made_at.ToNanoseconds()
        unread.cancel()
        watch.cancel()


def test_the_page_for_prometheus_has_the_sums_and_a_bounded_number_of_nodes(shared: Controller) -> None:
    with reporting(shared, *(f"m{number}" for number in range(5))) as agents:
        for agent in agents:
            agent.offer(1, 1.5, zones=[(7, 1.5, nodes.GIB)])
        page = shared.page()
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        assert values["nodeagent_collect_zone_available_cores", "7"] == 7.5
        assert values["nodeagent_collect_zone_nodes", "7"] == 5
        assert values["nodeagent_collect_nodes", "offering"] >= 5
        assert values["nodeagent_collect_streams",] >= 5
        assert values["nodeagent_collect_reports_total", "full"] >= 5
        assert len([key for key in values if key[0] == "nodeagent_collect_node_available_cores"]) == 3
        assert values["nodeagent_collect_nodes_left_out",] >= 2
        assert shared.page("/readyz") == shared.page("/readyz")
        assert shared.page("/livez").startswith("ok")


def test_it_answers_health_checks(shared: Controller) -> None:
    stub = health_pb2_grpc.HealthStub(shared.channel)
    asked = health_pb2.HealthCheckRequest(service="nodeagent.v1.Collector")
    assert stub.Check(asked, timeout=WAIT_S).status == health_pb2.HealthCheckResponse.SERVING


def view(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COLLECT, "view", *words], capture_output=True, text=True, check=False, timeout=60)


def test_view_prints_what_the_running_one_has_gathered(tmp_path: Path) -> None:
    with collecting(tmp_path) as controller, reporting(controller, "a[b]", "idle") as (a, idle):
        a.offer(1, 4.25, zones=[(0, 4.25, nodes.GIB)])
        idle.offer(1, 4.0, withdrawn="a reading is missing")
        table = view("--address", controller.address)
        assert table.returncode == 0, table.stderr
        assert "2 nodes: 1 offering, 1 withdrawn, 0 stale" in table.stdout
        for words in ("all 4.25 8 GiB 1", "NUMA 0 4.25 1 GiB 1", "a[b] offering 4.25 16 8 GiB 6.00 3/4/5"):
            assert words in " ".join(table.stdout.split())
        assert "a reading is missing" in table.stdout
        found = json.loads(view("--address", controller.address, "-o", "json").stdout)
        assert (found["available_cores"], found["fresh_nodes"], found["withdrawn_nodes"]) == (4.25, 2, 1)
        assert {node["name"]: node["state"] for node in found["nodes"]} == {
            "a[b]": "offering",
            "idle": "withdrawn",
        }
        sums = json.loads(view("--address", controller.address, "-o", "json", "--no-nodes").stdout)
        assert sums["nodes"] == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--listen", "0.0.0.0:9470"], 78, "plain TCP is for loopback only"),
        (["--listen", "nonsense"], 78, "neither a unix socket nor HOST:PORT"),
        (
            ["--query", "10.0.0.1:9465", "--listen", "127.0.0.1:0", "--http", ""],
            78,
            "plain TCP is for loopback",
        ),
        (["--tls-cert", "c.pem"], 78, "go together"),
        (["--listen", "unix:/does/not/exist/s"], 1, "No such file or directory"),
        (["--tls-cert", "/a", "--tls-key", "/b", "--tls-ca", "/c"], 1, "/a: No such file or directory"),
        (["view", "--address", "unix:/does/not/exist"], 1, "is `nodeagent collect` running there?"),
        (["--http", "x"], 78, "http address"),
        (["--max-nodes", "0"], 2, "--max-nodes"),
        (["veiw"], 2, "No such command 'veiw'"),
    ],
)
def test_a_wrong_word_gets_one_clear_line_and_its_exit_code(words: list[str], status: int, said: str) -> None:
    done = subprocess.run([*COLLECT, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("nodeagent: "), done.stderr
    assert said.lower() in done.stderr.lower()


def test_a_second_controller_does_not_take_the_port_of_the_first(shared: Controller) -> None:
    done = subprocess.run(
        [*COLLECT, "--listen", shared.address, *NO_LOOK],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_without_a_terminal_there_is_a_line_per_change_and_as_json_too(tmp_path: Path) -> None:
    with (
        collecting(tmp_path, "-o", "json", "--refresh", "0.1") as controller,
        reporting(controller, "a") as (agent,),
    ):
        agent.offer(1, 4.0)
        assert eventually(lambda: controller.out.read_text().count("\n") == 2)
        for seq in range(2, 8):
            agent.offer(seq, 4.0)  # the sums stay
            time.sleep(0.1)
        first, second = map(json.loads, controller.out.read_text().splitlines())
    assert (first["available_cores"], second["available_cores"]) == (0.0, 4.0)


def test_on_a_terminal_the_table_is_drawn_anew(tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    words = [*COLLECT, "--listen", f"unix:{tmp_path}/s", *NO_LOOK, "--refresh", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        shown = read_until(mine, b"0 nodes: 0 offering")
        assert b"\x1b[" in shown
        with grpc.insecure_channel(f"unix:{tmp_path}/s") as channel:
            request = nodes.full("a", nodes.capacity(1, time.time(), 4.25, zones=[(0, 4.25, 1)]))
            requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            requests.put(request.SerializeToString())
            call = channel.stream_stream("/nodeagent.v1.Collector/Report")(iter(requests.get, None))
            assert b"4.25" in read_until(mine, b"1 node: 1 offering, 0 withdrawn, 0 stale   1 stream")
            requests.put(None)
            assert list(call) == []
        process.send_signal(signal.SIGINT)
        read_until(mine, b"")
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(mine)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What is shown up to and including `wanted`, and a bit more; with b"" until it is closed."""
    shown, end = b"", time.monotonic() + WAIT_S
    while time.monotonic() < end and not (wanted and wanted in shown and shown.endswith(b"\x1b[0m")):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                return shown
        elif wanted and wanted in shown:
            return shown
    assert wanted in shown, shown.decode()
    return shown


def now(tick: Tick) -> Tick:
    """The same as of now: the samples are of long ago."""
    capacity, unix = tick.decision.capacity, time.time()
    valid_s = capacity.valid_until_unix - capacity.observed_unix
    fresh = replace(capacity, observed_unix=unix, valid_until_unix=unix + valid_s)
    return replace(tick, decision=replace(tick.decision, capacity=fresh))


def test_with_query_it_asks_agents_and_asks_again_when_they_come_back(tmp_path: Path) -> None:
    sockets = [f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/two.sock"]
    with collecting(tmp_path, "--query", ",".join(sockets)) as controller:
        assert counted(controller, lambda view: not view.nodes)
        with serving(sockets[0]) as server:
            server.publish(now(offering(1, 3.0)))
            assert counted(controller, lambda view: view.available_cores == 3.0)
            node = controller.node("node-7")
            assert node is not None
            assert node.connected
            assert node.status.capacity.seq == 1
            assert node.status.total_cores == 8
            server.publish(now(offering(2, 1.0)))
            assert counted(controller, lambda view: view.available_cores == 1.0)
        assert counted(controller, lambda view: not view.nodes[0].connected)
        with serving(sockets[0]) as server:
            server.publish(now(offering(1, 2.0)))
            assert counted(controller, lambda view: view.available_cores == 2.0)


def test_of_two_addresses_of_one_node_the_newer_one_counts_and_the_other_is_asked_when_it_is_gone(
    tmp_path: Path,
) -> None:
    first, second = f"unix:{tmp_path}/one.sock", f"unix:{tmp_path}/two.sock"
    with collecting(tmp_path, "--query", first, "--query", second) as controller, serving(first) as older:
        older.publish(now(offering(1, 3.0, valid_s=60.0)))
        assert counted(controller, lambda view: view.available_cores == 3.0)
        with serving(second) as newer:
            newer.publish(now(offering(1, 1.0, valid_s=60.0)))
            assert counted(controller, lambda view: view.available_cores == 1.0)
            assert len(controller.view().nodes) == 1
            assert controller.said("stream.replaced")[0]["older"] == first
            older.publish(now(offering(2, 5.0, valid_s=60.0)))
            time.sleep(1.5)  # it is told, and asked again in vain
            assert controller.view().available_cores == 1.0
        assert counted(controller, lambda view: view.available_cores == 5.0)
