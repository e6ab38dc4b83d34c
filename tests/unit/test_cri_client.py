"""The runtime's answers over a real socket: either version, garbage, silence. tests/live has a real one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from nodeagent.model.errors import AgentError, Failed, Garbled, Unsupported
from nodeagent.model.kubernetes import ContainerTold, KubernetesSettings
from nodeagent.model.pod import Priority, Qos
from nodeagent.pods.cri import Runtime
from tests.live.cri_wire import field

SETTINGS = KubernetesSettings(timeout_s=5.0)
Answers = dict[str, Callable[[bytes], bytes]]


def entry(number: int, key: str, value: str) -> bytes:
    """One pair of a map."""
    return field(number, field(1, key) + field(2, value))


def sandbox(uid: str, *, box: str = "", name: str = "web", state: int = 0, **labels: str) -> bytes:
    metadata = field(1, name) + field(2, uid) + field(3, "shop") + field(4, 7)
    pairs = b"".join(entry(5, f"nodeagent.io/{key}", value) for key, value in labels.items())
    body = field(1, box or f"box-{uid}") + field(2, metadata) + field(3, state) + field(4, 123) + pairs
    return field(1, body + entry(6, "nodeagent.io/hands-off", "false") + field(7, "runc"))


def container(name: str, uid: str, state: int = 1) -> bytes:
    body = field(1, f"id-{name}") + field(2, f"box-{uid}") + field(3, field(1, name) + field(2, 1))
    return field(1, body + field(5, "sha256:1") + field(6, state) + field(7, 99))


def status(request: bytes) -> bytes:
    """Verbose, as containerd 1.6 answers."""
    assert request.endswith(b"\x10\x01"), "verbose"
    pid = 4711 if b"id-app" in request else 0
    return field(1, field(1, "x")) + entry(
        2, "info", json.dumps({"sandboxID": "b", "pid": pid, "config": {}})
    )


GOOD: Answers = {
    "ListPodSandbox": lambda _: sandbox("u", qos="batch", priority="low") + sandbox("old", state=1),
    "ListContainers": lambda _: container("app", "u") + container("done", "u", 2) + container("odd", "u"),
    "ContainerStatus": status,
}


@contextlib.contextmanager
def runtime(home: Path, answers: Answers, version: str = "v1") -> Iterator[Runtime]:
    """A runtime that has this version of the interface."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(lambda raw, _context, answer=answer: answer(raw))
        for method, answer in answers.items()
    }
    service = grpc.method_handlers_generic_handler(f"runtime.{version}.RuntimeService", handlers)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix:{home}/cri.sock")
    server.start()
    client = Runtime(f"{home}/cri.sock", SETTINGS)
    try:
        yield client
    finally:
        client.close()
        server.stop(None)


def failure(client: Runtime) -> AgentError:
    with pytest.raises(AgentError) as caught:
        client.pods()
    return caught.value


@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_pods_containers_and_processes_by_whichever_version_there_is(tmp_path: Path, version: str) -> None:
    with runtime(tmp_path, GOOD, version) as client:
        for _ in range(2):
            (pod,) = client.pods()
            assert (pod.uid, pod.full_name, pod.qos, pod.priority) == (
                "u",
                "shop/web",
                Qos.BATCH,
                Priority.LOW,
            )
            assert pod.containers == (
                ContainerTold("id-app", "app", 4711),
                ContainerTold("id-odd", "odd", None),
            )
            assert (pod.sandboxes, pod.cpus, pod.hands_off) == (("box-u",), None, False)
            assert client.version == version


def test_a_process_is_asked_for_once(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def counted(request: bytes) -> bytes:
        asked.append(request)
        return status(request)

    with runtime(tmp_path, {**GOOD, "ContainerStatus": counted}) as client:
        client.pods()
        client.pods()
    assert len(asked) == 2, "app and odd"


def test_a_sandbox_that_was_made_anew_is_one_pod(tmp_path: Path) -> None:
    twice = {**GOOD, "ListPodSandbox": lambda _: sandbox("u") + sandbox("u", box="box-2")}
    with runtime(tmp_path, twice) as client:
        (pod,) = client.pods()
    assert pod.sandboxes == ("box-u", "box-2")
    assert len(pod.containers) == 2


@pytest.mark.parametrize("info", ["", "null", "[]", "{}", '{"pid": -1}', '{"pid": "x"}', "[" * 5000])
def test_a_runtime_that_hides_its_processes_tells_the_rest(tmp_path: Path, info: str) -> None:
    hidden = {**GOOD, "ContainerStatus": lambda _: entry(2, "info", info)}
    with runtime(tmp_path, hidden) as client:
        (pod,) = client.pods()
    assert [each.pid for each in pod.containers] == [None, None]


def test_a_pod_without_a_proper_name_is_left_out(tmp_path: Path) -> None:
    odd = {**GOOD, "ListPodSandbox": lambda _: sandbox("") + sandbox("v", name="a/b") + sandbox("u")}
    with runtime(tmp_path, odd) as client:
        assert [pod.uid for pod in client.pods()] == ["u"]


def test_garbage_refusal_and_silence_are_told_apart(tmp_path: Path) -> None:
    with runtime(tmp_path, {**GOOD, "ListContainers": lambda _: b"\xff\xff\xff"}) as client:
        assert isinstance(failure(client), Garbled)
    with runtime(tmp_path, {"Version": lambda _: b""}) as client:
        none = failure(client)
        assert isinstance(none, Unsupported) and "disabled_plugins" in none.hint

    def slow(_: bytes) -> bytes:
        time.sleep(1.5)
        return b""

    with runtime(tmp_path, {**GOOD, "ListPodSandbox": slow}) as client:
        client._settings = KubernetesSettings(timeout_s=0.3)
        begin = time.monotonic()
        late = failure(client)
        assert isinstance(late, Failed) and "DEADLINE_EXCEEDED" in str(late)
        assert time.monotonic() - begin < 1.4
