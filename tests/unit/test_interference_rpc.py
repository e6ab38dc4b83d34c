"""Interference over gRPC and on the command line: a real server, asked as clients and operators do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from nodeagent.collect.query import status_of
from nodeagent.collect.screen import picture
from nodeagent.collect.told import summary
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.interference import (
    Action,
    Alarm,
    Episode,
    Gate,
    Interference,
    Restraint,
    Rung,
    State,
    Suspect,
    Trial,
    TrialResult,
)
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Mode
from nodeagent.model.symptom import Channel
from nodeagent.report.events import events
from nodeagent.rpc.board import CLEARED
from nodeagent.rpc.convert import report_message
from nodeagent.rpc.interference import episode_message, episode_of, restraint_message, restraint_of
from nodeagent.rpc.server import RpcServer
from nodeagent.rpc.status import Who, in_force, node_status
from nodeagent.v1 import collector_pb2, event_pb2
from nodeagent.v1 import interference_pb2 as wire
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit.interference_samples import (
    ANTAGONIST,
    VICTIM,
    at,
    episode,
    rejection,
    stopped,
    ticks,
    with_interference,
)
from tests.unit.rpc_clients import WAIT_S, client, code, serving
from tests.unit.test_cli import nodeagent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RpcServer]:
    with serving(f"unix:{tmp_path}/rpc.sock", heartbeat_s=60.0) as running:
        yield running


def post(server: RpcServer, made: list[Tick]) -> None:
    """As the agent does: each tick with its events."""
    before = None
    for tick in made:
        server.publish(tick, Policy(), Memory(), tuple(events(before, tick)))
        before = tick


def listed(server: RpcServer, **asked: object) -> pb.ListInterferenceResponse:
    with client(server) as stub:
        request = pb.ListInterferenceRequest(**asked)  # type: ignore[arg-type]
        answer: pb.ListInterferenceResponse = stub.ListInterference(request, timeout=WAIT_S)
    return answer


def test_who_is_slowed_is_listed_with_who_is_held_back_for_it(server: RpcServer) -> None:
    post(server, ticks()[:7])
    found = listed(server)
    (one,) = found.episodes
    assert (found.seq, one.victim_name, one.state) == (6, "search-7", wire.INTERFERENCE_STATE_CONFIRMED)
    assert (one.channel, list(one.antagonist_uids)) == (wire.CHANNEL_CPU, [ANTAGONIST])
    assert [(t.result, t.began_s, t.until_s, round(t.during, 2)) for t in one.trials] == [
        (wire.TRIAL_RESULT_KEPT, 3.0, 13.0, 0.04)
    ]
    assert one.suspects[0].scores == {"rho": 0.91, "lift": 0.42} and one.suspects[0].named
    assert "because transcode-3 takes CPU time; I capped it" in one.story
    assert not one.HasField("cleared_at") and not one.HasField("recovered_s")
    (held,) = found.restraints
    assert (held.rung, held.quota_cores, held.lease_left_s) == (wire.RUNG_QUOTA, 0.5, 20.0)
    assert not held.HasField("memory_high_bytes")


def test_what_is_over_is_told_until_it_is_too_old_and_not_when_only_open_ones_are_asked_for(
    server: RpcServer,
) -> None:
    post(server, ticks())
    (one,) = listed(server).episodes
    assert one.HasField("cleared_at") and one.recovered_s == 4.0
    assert not listed(server, open_only=True).episodes
    many = [
        with_interference(n, Interference(episodes=(replace(episode(n), id=str(n), cleared_unix=at(n)),)))
        for n in range(20, 20 + CLEARED + 10)
    ]
    post(server, many)
    found = listed(server)
    assert [each.id for each in found.episodes] == [str(n) for n in range(19 + CLEARED + 10, 29, -1)]


def test_one_victims_episodes_are_found_by_its_name_and_by_its_uid(server: RpcServer) -> None:
    two = Interference(episodes=(episode(1), replace(episode(1), id="2", victim="u", victim_name="web")))
    post(server, [with_interference(1, two)])
    assert [e.id for e in listed(server, victim="web").episodes] == ["2"]
    assert [e.id for e in listed(server, victim=VICTIM).episodes] == ["cpu-1"]
    assert not listed(server, victim="nobody").episodes
    with client(server) as stub:
        asked = pb.ListInterferenceRequest(victim="x" * 5000)
        status, details = code(lambda: stub.ListInterference(asked, timeout=WAIT_S))
    assert status is grpc.StatusCode.INVALID_ARGUMENT and details.startswith("victim: ")


def test_an_answer_stays_within_the_message_limit_and_says_what_is_left_out(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/rpc.sock", max_message_bytes=4096) as small:
        many = tuple(replace(episode(1), id=str(n)) for n in range(40))
        post(small, [with_interference(1, replace(stopped(*[rejection()] * 60), episodes=many))])
        found = listed(small)
    assert found.ByteSize() <= 4096 and not found.rejections
    assert 0 < len(found.episodes) == 40 - found.left_out


def test_the_report_has_it_and_has_nothing_while_all_are_well(server: RpcServer) -> None:
    with client(server) as stub:
        for tick, there in ((ticks()[6], True), (ticks()[0], False)):
            post(server, [tick])
            report = stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S).report
            assert report.HasField("interference") == there
        post(server, [with_interference(9, stopped(rejection(Gate.STEAL)))])
        report = stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S).report
    (stop,) = report.interference.rejections
    assert (stop.pod_name, stop.gate, stop.alarm.sign) == ("search-7", wire.GATE_STEAL, "cpu.stall")


def test_watchers_hear_of_it_under_a_topic_of_its_own(server: RpcServer) -> None:
    post(server, ticks())
    with client(server) as stub:
        asked = pb.WatchEventsRequest(topics=[event_pb2.EVENT_TOPIC_INTERFERENCE], run_id="-")
        heard = next(stub.WatchEvents(asked, timeout=WAIT_S))
    names = [each.name for each in heard.events]
    assert names[0] == "interference.opened"
    assert names[-2:] == ["interference.closed", "interference.released"]
    assert heard.events[-2].keys["recovered_s"] == "4"
    assert heard.events[-2].topic == event_pb2.EVENT_TOPIC_INTERFERENCE


def test_a_controller_hears_how_many_are_slowed_and_shows_it() -> None:
    heard, status = [], collector_pb2.NodeStatus()
    for tick in ticks():
        status = node_status(tick, tick.decision.capacity, Who("node-7", "0.1"), in_force(tick, Mode.OBSERVE))
        assert status.slowed_pods == status_of(report_message(tick, "node-7")).slowed_pods
        heard.append(status.slowed_pods)
    assert heard == [0, *[1] * 7, 0, 0]
    status.slowed_pods = 3
    view = collector_pb2.ClusterView(nodes=[collector_pb2.NodeView(node_name="node-7", status=status)])
    shown = io.StringIO()
    Console(file=shown, width=200).print(picture("cluster", summary(view)))
    assert "3 slowed" in shown.getvalue()


names = st.text(max_size=8)
numbers = st.floats(allow_nan=False)
alarms = st.builds(Alarm, names, st.sampled_from(Channel), numbers, st.none() | numbers, numbers, numbers)
suspects = st.builds(
    Suspect, names, names, names, st.dictionaries(names, numbers, max_size=2), st.none() | numbers, numbers,
    numbers, st.booleans(),
)  # fmt: skip
moments = st.integers(0, 2**31).map(float)
trials = st.builds(Trial, names, moments, moments, numbers, st.none() | numbers, st.sampled_from(TrialResult))
actions = st.builds(Action, moments, names, st.sampled_from(Rung), names)
episodes = st.builds(
    Episode, id=names, victim=names, victim_name=names, victim_cgroup=names,
    channel=st.sampled_from(Channel), state=st.sampled_from(State), opened_at=st.just(0.0),
    opened_unix=moments, cleared_unix=st.none() | moments, evidence=st.tuples(alarms),
    suspects=st.tuples(suspects), trials=st.tuples(trials), actions=st.tuples(actions, actions), held=names,
)  # fmt: skip
restraints = st.builds(
    Restraint, uid=names, cgroup=names, rung=st.sampled_from(Rung), episode=names,
    until=st.floats(0.0, 1e6), why=names, idle=st.booleans(), quota_cores=st.none() | numbers,
    away_from=names, memory_high_bytes=st.none() | st.integers(0, 2**40), io_weight=st.none() | numbers,
    llc_floor=st.booleans(), frozen=st.booleans(),
)  # fmt: skip


@given(episodes, restraints)
def test_what_is_sent_is_what_arrives(sent: Episode, held: Restraint) -> None:
    message = wire.Episode.FromString(episode_message(sent).SerializeToString())
    assert episode_of(message) == sent
    back = wire.Restraint.FromString(restraint_message(held, 0.0).SerializeToString())
    assert restraint_of(back) == held


def test_a_name_that_is_no_utf_8_is_sent_all_the_same() -> None:
    odd = replace(episode(1), victim_name="web-\udcff", actions=(Action(at(1), "\udcfe", Rung.IDLE, ""),))
    message = wire.Episode.FromString(episode_message(odd).SerializeToString())
    assert message.victim_name == r"web-\udcff" and r"\udcfe" in message.story


def test_the_command_shows_a_row_for_each_and_the_story(server: RpcServer) -> None:
    post(server, ticks()[:7])
    done = nodeagent("interference", "--address", server.address)
    assert done.returncode == 0, done.stderr
    head, row, _, story, *rest = done.stdout.splitlines()
    assert head.split() == ["since", "lasted", "victim", "resource", "antagonist", "trial", "action", "state"]
    assert row.split()[1:] == [
        "5", "s", "search-7", "cpu", "transcode-3", "kept:", "11%", "left", "quota", "confirmed",
    ]  # fmt: skip
    assert story.startswith("search-7 is slowed since ") and story.endswith("takes CPU time; I capped it")
    assert rest[1:] == ["held back now:", "  b/3: 0.5 cores; search-7 waits for CPU; lease 20 s"]


def test_the_command_tells_what_is_over_what_was_rejected_and_that_all_is_well(server: RpcServer) -> None:
    post(server, ticks())
    out = nodeagent("interference", "--address", server.address).stdout
    assert "over, recovered in 4 s" in out and "search-7 recovered in 4 s" in out
    post(server, [with_interference(11, stopped(rejection()))])
    out = nodeagent("interference", "--open", "--address", server.address).stdout
    assert out.startswith("nobody online is or was slowed by others\n")
    told = "search-7: cpu.stall 41 % (usual 3 %, z 6.0), own-quota: throttled in 35 % of its periods"
    assert f"\nnobody else's doing:\n  {told}\n" in out


def test_the_command_answers_in_json(server: RpcServer) -> None:
    post(server, ticks())
    done = nodeagent("interference", "search-7", "-o", "json", "--address", server.address)
    found = json.loads(done.stdout)
    (one,) = found["episodes"]
    assert (one["victim_name"], one["antagonists"], one["recovered_s"]) == ("search-7", ["transcode-3"], 4.0)
    assert one["state"] == "calm" and one["evidence"][0]["sign"] == "cpu.stall"
    assert "I capped it" in one["story"] and found["left_out"] == 0
    assert json.loads(nodeagent("interference", "x", "-o", "json", "--address", server.address).stdout)[
        "episodes"
    ] == []  # fmt: skip


def test_without_an_agent_the_command_says_so(tmp_path: Path) -> None:
    done = nodeagent("interference", "--address", f"unix:{tmp_path}/none.sock")
    assert done.returncode == 1 and "no agent answers at" in done.stderr
