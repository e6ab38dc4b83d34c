"""What labels, annotations and priority classes say, and what they may not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.pod import Priority, Qos
from nodeagent.pods.labels import Priced, Wishes, wishes

NOBODY = Priced()


def said(
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    priced: Priced = NOBODY,
    namespace: str = "default",
    **settings: str,
) -> Wishes:
    return wishes(namespace, labels or {}, annotations or {}, priced, KubernetesSettings(**settings))  # type: ignore[arg-type]


def qos(value: str, key: str = "nodeagent.io/qos") -> Qos | None:
    return said({key: value}).qos


def test_our_label_in_any_case() -> None:
    assert [qos(text) for text in ("LS", "ls", "Mid", "BATCH", "batch")] == [
        Qos.LS, Qos.LS, Qos.MID, Qos.BATCH, Qos.BATCH,
    ]  # fmt: skip
    assert said().qos is None


def test_koordinators_classes() -> None:
    found = {value: qos(value, "koordinator.sh/qosClass") for value in ("LSE", "LSR", "LS", "BE", "SYSTEM")}
    assert found == {"LSE": Qos.LS, "LSR": Qos.LS, "LS": Qos.LS, "BE": Qos.BATCH, "SYSTEM": Qos.MID}


def test_our_label_comes_before_koordinators_and_may_have_another_name() -> None:
    both = {"nodeagent.io/qos": "mid", "koordinator.sh/qosClass": "BE"}
    assert said(both).qos is Qos.MID
    assert said(both, qos_label="example.org/class").qos is Qos.BATCH
    assert said({"example.org/class": "LS"}, qos_label="example.org/class").qos is Qos.LS
    assert said({"koordinator.sh/qosClass": "LSE"}, qos_label="koordinator.sh/qosClass").qos is Qos.LS


@pytest.mark.parametrize("value", ["", "besteffort", "LS,BATCH", "BE", "\x00", "BATCH" * 50])
def test_a_value_that_is_not_known_makes_mid_and_is_told(value: str) -> None:
    found = said({"nodeagent.io/qos": value, "koordinator.sh/qosClass": "BE"})
    assert found.qos is Qos.MID
    assert found.wrong[0].startswith("nodeagent.io/qos = ")
    assert len(found.wrong[0]) < 250
    assert found.wrong[0].isprintable()


@pytest.mark.parametrize(
    ("namespace", "annotations", "priced"),
    [
        ("kube-system", {}, NOBODY),
        ("default", {"kubernetes.io/config.source": "file"}, NOBODY),
        ("default", {"kubernetes.io/config.mirror": "0f2b"}, NOBODY),
        ("default", {}, Priced("system-node-critical", 2_000_001_000)),
        ("default", {"nodeagent.io/hands-off": "true"}, NOBODY),
    ],
)
def test_no_label_makes_batch_of_what_the_system_needs_or_wants_to_be_left_alone(
    namespace: str, annotations: dict[str, str], priced: Priced
) -> None:
    found = said({"nodeagent.io/qos": "batch"}, annotations, priced, namespace)
    assert found.qos is Qos.MID
    assert "cannot be batch" in found.wrong[0]
    ls = said({"nodeagent.io/qos": "ls"}, annotations, priced, namespace)
    assert (ls.qos, ls.wrong) == (Qos.LS, ())


@pytest.mark.parametrize(
    ("labels", "priced", "priority"),
    [
        ({}, NOBODY, Priority.MEDIUM),
        ({"nodeagent.io/priority": "High"}, Priced("koord-free", 3500), Priority.HIGH),
        ({"nodeagent.io/priority": "urgent"}, Priced("koord-free", 3500), Priority.MEDIUM),
        ({"koordinator.sh/priority-class": "koord-batch"}, NOBODY, Priority.MEDIUM),
        ({"koordinator.sh/priority-class": "koord-free"}, NOBODY, Priority.LOW),
        ({}, Priced("koord-free", 3999), Priority.LOW),
        ({}, Priced("spark-low", 0), Priority.LOW),
        ({}, Priced("spark-high", 0), Priority.HIGH),
        ({}, Priced("preemptible", -10), Priority.LOW),
        ({}, Priced("", 3500), Priority.LOW),
        ({}, Priced("", 5500), Priority.MEDIUM),
        ({}, Priced("important", 1_000_000), Priority.HIGH),
    ],
)
def test_offline_priority_is_that_of_a_label_else_of_the_priority_class(
    labels: dict[str, str], priced: Priced, priority: Priority
) -> None:
    found = said({"nodeagent.io/qos": "batch", **labels}, priced=priced)
    assert found.priority is priority
    assert bool(found.wrong) is (labels.get("nodeagent.io/priority") == "urgent")


def test_annotations_ask_for_numa_nodes_and_a_device() -> None:
    near = {"nodeagent.io/numa": "bind", "nodeagent.io/near": "eth1"}
    found = said({"nodeagent.io/qos": "ls"}, near)
    assert (found.numa_bind, found.exclusive, found.near, found.wrong) == (True, False, "eth1", ())
    assert said({}, {"nodeagent.io/numa": "exclusive"}).exclusive
    for odd in ({"nodeagent.io/numa": "yes"}, {**near, "nodeagent.io/near": "../x"}):
        assert said({}, odd).wrong
    mid = said({"nodeagent.io/qos": "mid"}, near)
    assert (mid.numa_bind, len(mid.wrong)) == (False, 1)


def test_whoever_is_to_be_left_alone_is_not_bound_and_doubt_leaves_alone() -> None:
    found = said({}, {"nodeagent.io/hands-off": "true", "nodeagent.io/numa": "bind"})
    assert (found.hands_off, found.numa_bind) == (True, False)
    odd = said({}, {"nodeagent.io/hands-off": "yes"})
    assert odd.hands_off and odd.wrong
    assert not said({}, {"nodeagent.io/hands-off": "false"}).hands_off


texts = st.dictionaries(
    st.sampled_from(
        ["nodeagent.io/qos", "koordinator.sh/qosClass", "nodeagent.io/numa", "nodeagent.io/near",
         "nodeagent.io/hands-off", "nodeagent.io/priority", "koordinator.sh/priority-class"]
    ),
    st.one_of(st.text(max_size=20), st.sampled_from(["batch", "BE", "ls", "bind", "true", "high", "eth0"])),
)  # fmt: skip


@given(texts, texts, st.integers(-(1 << 31), (1 << 31) - 1))
def test_only_a_word_for_batch_makes_batch(
    labels: dict[str, str], annotations: dict[str, str], value: int
) -> None:
    found = said(labels, annotations, Priced("x", value))
    if found.qos is Qos.BATCH:
        words = {
            labels.get("nodeagent.io/qos", "").strip().lower(),
            labels.get("koordinator.sh/qosClass", "").strip().lower(),
        }
        assert words & {"batch", "be"}
        assert not found.hands_off and not found.critical
    assert not (found.numa_bind and found.hands_off)
    assert all(text.isprintable() for text in found.wrong)
