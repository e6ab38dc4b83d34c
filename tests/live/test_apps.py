"""A running agent and real applications in real pods: exporters, pushes over gRPC, StatsD."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.core.apps import cpu_per_request_s, latency_s, served, slack
from nodeagent.journal import read_segments
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.errors import Failed
from nodeagent.model.snapshot import Pod, Snapshot
from tests.live.kube_place import kube_place
from tests.live.running import SLOWNESS, RunningAgent, cpu_file, executed, running, unique, until
from tests.unit.kubelet_samples import UID, cgroupfs
from tests.unit.kubelet_server import TOKEN, Certificates, kubelet

pytestmark = pytest.mark.live

# An application with a real prometheus_client exporter: 500 requests a second, of which 2 % take 80 ms.
EXPORTER = """
import sys, time
from prometheus_client import Counter, Histogram, start_http_server
latency = Histogram("work_seconds", "work", ["path"], buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2))
done = Counter("work_done", "requests", ["path"])
server, _ = start_http_server(0, addr=sys.argv[1])
print(server.server_port, flush=True)
while True:
    for n in range(50):
        latency.labels("/a").observe(0.08 if n == 7 else 0.008)
        done.labels("/a").inc()
    time.sleep(0.1)
"""
PUSHER = """
import sys, time
import grpc
from google.protobuf.duration_pb2 import Duration
from nodeagent.v1 import apps_pb2 as pb
from nodeagent.v1.apps_pb2_grpc import AppSignalsStub
stub = AppSignalsStub(grpc.insecure_channel(sys.argv[1]))
told = [pb.LatencyQuantile(quantile=q, latency_s=s) for q, s in ((0.5, 0.004), (0.99, 0.03))]
second = Duration(seconds=1)
while True:
    ask = pb.PushAppSignalsRequest(window=second, requests=600, quantiles=told, slo="p99 <= 20ms")
    try:
        print(stub.PushAppSignals(ask, timeout=5).pod_name, flush=True)
    except grpc.RpcError as error:
        print(error.code().name, error.details(), flush=True)
    time.sleep(1)
"""
STATSD = """
import socket, sys, time
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    sender.sendto(b"\\n".join([b"shop.latency:12|ms"] * 400), sys.argv[1])
    time.sleep(0.5)
"""


def script(home: Path, name: str, text: str, *words: str) -> tuple[str, Path]:
    """A shell command that runs it, and the file that its output goes to."""
    (home / f"{name}.py").write_text(text)
    out = home / f"{name}.out"
    root = Path(__file__).parents[2]
    command = f"PYTHONPATH={root} exec {sys.executable} {home}/{name}.py {' '.join(words)} > {out} 2>&1"
    return command, out


def snapshots(agent: RunningAgent) -> list[Snapshot]:
    """Those in the journal: what was told can be replayed."""
    try:
        found = read_segments(agent.state / "journal", lambda _warning: None)
        return [tick.snapshot for segment in found for tick in segment.ticks()]
    except Failed:  # none yet
        return []


def pods(agent: RunningAgent, name: str) -> list[tuple[float, Pod]]:
    """The pod of that name in each snapshot, with its time."""
    return [(s.at, pod) for s in snapshots(agent) for pod in s.pods if pod.spec.name == name]


def known(agent: RunningAgent, name: str) -> bool:
    seen = pods(agent, name)
    return bool(seen) and slack(seen[-1][1].app, seen[-1][0]) is not None


@contextmanager
def online(agent: RunningAgent, name: str, command: str) -> Iterator[None]:
    with executed(agent.runtime, "ls", name, command):
        yield


def test_the_latency_of_a_real_exporter_and_its_cpu_time_per_request_are_known(tmp_path: Path) -> None:
    name = unique("exporter")
    command, out = script(tmp_path, "exporter", EXPORTER, "127.0.0.1")
    config = tmp_path / "nodeagent.toml"
    config.write_text("")
    with (
        running(tmp_path, config, app_signals__timeout_s=min(10.0, 2.0 * SLOWNESS)) as agent,
        online(agent, name, command),
    ):
        until(lambda: out.exists() and out.read_text().strip().isdigit(), "the exporter's port")
        config.write_text(
            f'[[apps]]\nmatch = "**/{name}"\nmetrics = "http://127.0.0.1:{out.read_text().strip()}/metrics"\n'
            'latency_histogram = "work_seconds"\nrequests_counter = "work_done{path=\\"/a\\"}"\n'
            'slo = "p99 <= 20ms"\nperiod_s = 1\n'
        )
        agent.process.send_signal(1)  # SIGHUP: [[apps]] are taken anew
        until(lambda: known(agent, name), f"its p99 in {agent.log_path.read_text()[-2000:]}", 30.0)
        until(lambda: len(costs(agent, name)) > 1, "CPU time per request")
        at, pod = pods(agent, name)[-1]
    assert pod.app is not None and pod.app.source == "prometheus" and pod.app.error == ""
    assert 0.05 < (latency_s(pod.app, at, 0.99) or 0.0) <= 0.1  # 80 ms lie in the bucket up to 100 ms
    assert 0.005 < (latency_s(pod.app, at, 0.5) or 0.0) <= 0.01
    assert (slack(pod.app, at) or 0.0) < 0.0
    assert 0.0 < costs(agent, name)[-1] < 0.002 * SLOWNESS


def costs(agent: RunningAgent, name: str) -> list[float]:
    """CPU seconds per request, as the detector has it of two counts."""
    seen = pods(agent, name)
    marks = [
        mark
        for (from_at, before), (at, now) in itertools.pairwise(seen)
        if (mark := served(now.app, (from_at, before.reading.cpu_us), (at, now.reading.cpu_us))) is not None
    ]
    pairs = itertools.pairwise(marks)
    return [cost for a, b in pairs if (cost := cpu_per_request_s(a, b)) is not None]


def test_a_process_in_a_pod_pushes_for_its_pod_and_one_outside_is_refused(tmp_path: Path) -> None:
    name = unique("pusher")
    with running(tmp_path) as agent:
        address = f"unix:{agent.runtime}/nodeagent.sock"
        command, out = script(tmp_path, "pusher", PUSHER, address)
        with online(agent, name, command):
            until(lambda: known(agent, name), "what it pushed", 30.0)
            at, pod = pods(agent, name)[-1]
            assert pod.app is not None and pod.app.source == "grpc"
            assert latency_s(pod.app, at, 0.99) == 0.03
            assert slack(pod.app, at) == pytest.approx(-0.5)
            assert name in out.read_text().splitlines()
        until(lambda: not any(pod.spec.name == name for pod in snapshots(agent)[-1].pods), "the pod is gone")
        outside, told = script(tmp_path, "outside", PUSHER, address)
        with outsider(outside):
            until(lambda: told.exists() and "in no known pod" in told.read_text(), "a refusal")


@contextmanager
def outsider(command: str) -> Iterator[None]:
    """Outside of all pods: under systemd the tests themselves are in a unit, which may count as one."""
    root = find_hierarchies().walk_root
    process = subprocess.Popen(["sh", "-c", f"echo $$ > {root}/cgroup.procs && {command}"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_statsd_of_a_process_in_a_pod_counts_for_it_and_gets_old(tmp_path: Path) -> None:
    name = unique("statsd")
    config = tmp_path / "nodeagent.toml"
    config.write_text(
        f'[[apps]]\nmatch = "**/{name}"\nstatsd = "shop"\nslo = "p99 <= 20ms"\nperiod_s = 0.5\n'
    )
    path = tmp_path / "run" / "statsd.sock"
    command, _ = script(tmp_path, "statsd", STATSD, str(path))
    with (
        running(tmp_path, config, app_signals__statsd_socket=path) as agent,
        online(agent, name, f"({command}) & sleep 1000"),
    ):
        until(lambda: known(agent, name), "what it sent", 30.0)
        at, pod = pods(agent, name)[-1]
        assert pod.app is not None and pod.app.source == "statsd"
        assert latency_s(pod.app, at, 0.99) == pytest.approx(0.012, rel=0.06)
        inside = cpu_file(f"nodeagent/ls/{name}/cgroup.procs").read_text().split()
        words = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in inside}
        (sender,) = (pid for pid in inside if words[pid][1] == f"{tmp_path}/statsd.py")
        os.kill(int(sender), signal.SIGKILL)
        until(lambda: not known(agent, name), f"it is unknown once it is stale, {pods(agent, name)[-1]}")


def test_annotations_of_a_kubernetes_pod_are_followed_to_its_own_address(tmp_path: Path) -> None:
    """127.0.0.3 stands for a pod's address: it is one that the host reaches and no other pod has."""
    command, out = script(tmp_path, "exporter", EXPORTER, "127.0.0.3")
    (tmp_path / "token").write_text(TOKEN)
    with kube_place() as place, outsider(command), kubelet(Certificates(tmp_path).server()) as server:
        until(lambda: out.exists() and out.read_text().strip().isdigit(), "the exporter's port")
        port = out.read_text().strip()
        place.pod(cgroupfs(UID.format(0)))
        server.body = json.dumps({"kind": "PodList", "items": [document(port)]}).encode()
        with running(
            tmp_path,
            kubernetes__kubelet_url=server.url,
            kubernetes__token_file=tmp_path / "token",
            kubernetes__ca_file=tmp_path / "ca.crt",
            kubernetes__cri_endpoint="",
        ) as agent:
            until(lambda: known(agent, "shop/web"), "its p99", 40.0)
            at, pod = pods(agent, "shop/web")[-1]
    assert pod.app is not None and pod.app.slo is not None and pod.app.slo.bound_s == 0.5
    assert 0.0 < (slack(pod.app, at) or 0.0) < 1.0


def document(port: str) -> dict[str, object]:
    annotations = {
        "nodeagent.io/metrics": f"http://:{port}/metrics",
        "nodeagent.io/latency-histogram": "work_seconds",
        "nodeagent.io/slo": "p99 <= 500ms",
    }
    meta = {"uid": UID.format(0), "name": "web", "namespace": "shop", "annotations": annotations}
    return {
        "metadata": {**meta, "labels": {"nodeagent.io/qos": "LS"}},
        "spec": {"containers": []},
        "status": {"podIP": "127.0.0.3"},
    }


def test_the_loop_goes_on_at_its_pace_while_endpoints_are_silent(tmp_path: Path) -> None:
    """Ticks of 0.25 s beside an endpoint that never answers: none is late by what a scrape may take."""
    name = unique("silent")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        config = tmp_path / "nodeagent.toml"
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        config.write_text(
            f'[[apps]]\nmatch = "**/{name}"\nmetrics = "{url}"\nlatency_histogram = "w"\nperiod_s = 0.5\n'
        )
        with (
            running(tmp_path, config, app_signals__timeout_s=5.0) as agent,
            online(agent, name, "sleep 1000"),
        ):
            until(lambda: len(pods(agent, name)) > 20, "ticks with the pod", 40.0)
            seen = pods(agent, name)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(seen)]
    assert max(gaps) < 2.5 * SLOWNESS
    assert all(pod.app is not None and pod.app.at is None for _, pod in seen[-3:])
