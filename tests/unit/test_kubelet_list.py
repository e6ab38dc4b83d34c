"""What is read from a kubelet's answer, whatever its age, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model.errors import Garbled
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.pod import Priority, Qos
from nodeagent.pods.document import MAX_PODS
from nodeagent.pods.kubelet_list import read_pods
from tests.unit import kubelet_samples as samples

SETTINGS = KubernetesSettings()
MIB = 1 << 20


def document(**pod: object) -> bytes:
    metadata = {"uid": "u", "name": "n", "namespace": "s"}
    return json.dumps({"kind": "PodList", "items": [{"metadata": metadata, **pod}]}).encode()


def test_an_old_kubelets_pods() -> None:
    pods = samples.told(samples.V1_20)
    web = pods["shop/web-7c5d9b6f4-x2x9k"]
    assert (web.qos, web.cpus, web.memory) == (Qos.LS, 2.0, 4096 * MIB)
    assert (web.numa_bind, web.near, web.critical) == (True, "eth1", False)
    spark = pods["bigdata/spark-exec-17"]
    assert (spark.qos, spark.priority, spark.cpus, spark.memory) == (
        Qos.BATCH, Priority.MEDIUM, 4.0, 8192 * MIB,
    )  # fmt: skip
    assert pods["kube-system/kube-proxy-9wz2c"].critical
    etcd = pods["kube-system/etcd-node-7"]
    assert (etcd.uid, etcd.critical, etcd.cpus) == (samples.STATIC_UID, True, 0.1)
    report = pods["shop/report-28416-b5xkq"]
    assert (report.qos, report.priority, report.cpus, report.memory) == (
        Qos.BATCH, Priority.LOW, 1.0, 256 * MIB,
    )  # fmt: skip
    cache = pods["shop/cache-0"]
    assert (cache.qos, cache.cpus) == (Qos.MID, 0.25)
    assert cache.wrong == ("nodeagent.io/qos = 'urgent': takes ls, mid, batch",)
    assert [each.name for each in cache.containers] == ["redis", "exporter"]
    assert all(len(each.id) == 64 for each in cache.containers)


def test_a_new_kubelets_pods_with_sidecars_pod_level_resources_and_overhead() -> None:
    pods = samples.told(samples.V1_34)
    api = pods["shop/api-58f7c"]
    assert (api.qos, api.exclusive, api.cpus, api.memory) == (Qos.LS, True, 2.1, 2176 * MIB)
    assert [each.name for each in api.containers] == ["app", "mesh", "migrate"]
    train = pods["ml/train-0"]
    assert (train.qos, train.priority, train.cpus, train.memory) == (
        Qos.BATCH,
        Priority.LOW,
        6.0,
        12288 * MIB,
    )
    pool = pods["shop/pool-6d"]
    assert (pool.qos, pool.cpus, pool.memory) == (None, 3.0, 1024 * MIB)
    mirror = pods["kube-system/node-problem-detector-node-7"]
    assert mirror.aliases == (samples.MIRROR_HASH,)
    assert pods["vendor/untouched-0"].hands_off


def test_only_a_mirror_pod_goes_by_another_uid_and_it_is_never_batch() -> None:
    raw = json.loads(document())
    labels = {"labels": {"nodeagent.io/qos": "batch"}}
    for said, aliases, qos in (
        ({"kubernetes.io/config.hash": "victim"}, (), Qos.BATCH),
        ({"kubernetes.io/config.mirror": "victim"}, ("victim",), Qos.MID),
    ):
        raw["items"][0]["metadata"] |= {**labels, "annotations": said}
        ((pod,), _) = read_pods(json.dumps(raw).encode(), SETTINGS)
        assert (pod.aliases, pod.qos) == (aliases, qos)


def test_binding_without_a_cpu_request_is_refused_and_told() -> None:
    raw = json.loads(document())
    raw["items"][0]["metadata"] |= {
        "labels": {"nodeagent.io/qos": "ls"},
        "annotations": {"nodeagent.io/numa": "bind", "nodeagent.io/near": "eth0"},
    }
    ((pod,), _) = read_pods(json.dumps(raw).encode(), SETTINGS)
    assert (pod.numa_bind, pod.near) == (False, "")
    assert pod.wrong == ("nodeagent.io/numa = bind needs a CPU request",)


@pytest.mark.parametrize(
    "pod",
    [
        {},
        {"spec": {}, "status": {}},
        {"spec": None, "status": None},
        {"spec": {"overhead": {"cpu": None}, "containers": [{"resources": {"requests": {"cpu": None}}}]}},
        {"spec": {"containers": None, "initContainers": None, "overhead": None, "resources": None}},
        {"spec": {"containers": [{}], "priority": None}, "status": {"containerStatuses": None}},
        {"spec": {"containers": [{"name": "a", "resources": {"requests": None, "limits": {"cpu": "1"}}}]}},
        {
            "status": {
                "containerStatuses": [{"name": "a"}, {"containerID": "x"}, {"name": "b", "containerID": ""}]
            }
        },
    ],
)
def test_what_is_missing_or_null_is_not_told(pod: dict[str, object]) -> None:
    ((found,), unread) = read_pods(document(**pod), SETTINGS)
    assert unread == 0
    assert (found.qos, found.memory, found.containers, found.wrong) == (None, None, (), ())


def test_no_items_are_no_pods() -> None:
    assert read_pods(b'{"kind":"PodList","items":null}', SETTINGS) == ((), 0)
    assert read_pods(b'{"kind":"PodList"}', SETTINGS) == ((), 0)


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": {"uid": "u"}},
        {"metadata": {"uid": "u", "name": "../etc", "namespace": "s"}},
        {"metadata": {"uid": "u", "name": "n\n", "namespace": "s"}},
        {"metadata": {"uid": "", "name": "n", "namespace": "s"}},
        {"metadata": {"uid": "u", "name": "n", "namespace": "s", "labels": {"a": 1}}},
        {"metadata": {"uid": "u", "name": "n", "namespace": "s"}, "spec": {"containers": [{}] * 600}},
        "pod",
        7,
    ],
)
def test_a_pod_that_cannot_be_read_costs_that_pod_alone(pod: object) -> None:
    good = {"metadata": {"uid": "good", "name": "good", "namespace": "s"}}
    raw = json.dumps({"kind": "PodList", "items": [pod, good]}).encode()
    pods, unread = read_pods(raw, SETTINGS)
    assert ([each.uid for each in pods], unread) == (["good"], 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b'{"kind":"PodList","items":{}}',
        b'{"kind":"Status","items":[]}',
        samples.V1_20[:-100], b'{"kind":"PodList","items":[' + b"[" * 100_000, b"\xff\xfe",
        b'{"kind":"PodList","items":[' + b"{}," * MAX_PODS + b"{}]}",
    ],
)  # fmt: skip
def test_what_is_no_list_of_pods_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(Garbled, match=r"not a list of pods|more than"):
        read_pods(raw, SETTINGS)


@given(st.binary(max_size=200), st.integers(0, len(samples.V1_34)))
def test_noise_anywhere_is_refused_or_read_but_never_a_crash(noise: bytes, at: int) -> None:
    raw = samples.V1_34[:at] + noise + samples.V1_34[at + len(noise) :]
    try:
        pods, _ = read_pods(raw, SETTINGS)
    except Garbled:
        return
    assert all(pod.uid and pod.name.isprintable() for pod in pods)
