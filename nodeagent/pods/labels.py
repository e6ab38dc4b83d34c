"""What labels, annotations and priority of a pod say of its class: pure.

    class     nodeagent.io/qos (LS MID BATCH), else koordinator.sh/qosClass (LSE LSR LS BE SYSTEM), else None
    priority  nodeagent.io/priority, else koordinator.sh/priority-class, else the pod's priority class

Invariant: what is not understood makes a pod MID, never Batch; nor does any label make Batch of a critical
pod or of one that asks to be left alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.model.pod import Priority, Qos, is_device_name

KOORDINATOR_QOS, KOORDINATOR_PRIORITY = "koordinator.sh/qosClass", "koordinator.sh/priority-class"
NUMA, NEAR, HANDS_OFF = "nodeagent.io/numa", "nodeagent.io/near", "nodeagent.io/hands-off"
CONFIG_SOURCE, CONFIG_MIRROR = "kubernetes.io/config.source", "kubernetes.io/config.mirror"
SYSTEM_CRITICAL = 2_000_000_000  # Kubernetes pkg/apis/scheduling SystemCriticalPriority
HIGH_FROM = 1_000_000
KOORDINATOR_FREE = range(3000, 4000)
_OWN = {"ls": Qos.LS, "mid": Qos.MID, "batch": Qos.BATCH}
_KOORDINATOR = {"lse": Qos.LS, "lsr": Qos.LS, "ls": Qos.LS, "be": Qos.BATCH, "system": Qos.MID}
_PRIORITIES = {each.value: each for each in Priority}
_KOORDINATOR_PRIORITIES = {
    "koord-prod": Priority.HIGH,
    "koord-mid": Priority.HIGH,
    "koord-batch": Priority.MEDIUM,
    "koord-free": Priority.LOW,
}

Texts = Mapping[str, str]


class Wishes(Struct, frozen=True, kw_only=True):
    """What they come to, and what of them was not understood."""

    qos: Qos | None
    priority: Priority
    numa_bind: bool
    exclusive: bool
    near: str
    hands_off: bool
    critical: bool
    wrong: tuple[str, ...]


class Priced(Struct, frozen=True):
    """The pod's priority class, by name and value."""

    name: str = ""
    value: int | None = None


def wishes(
    namespace: str, labels: Texts, annotations: Texts, priced: Priced, settings: KubernetesSettings
) -> Wishes:
    """All that a pod says of itself; whether it has the CPU request that binding needs is not looked at."""
    wrong: list[str] = []
    critical = is_critical(namespace, annotations, priced)
    hands_off = _flag(annotations, wrong)
    qos = _qos(labels, settings.qos_label, wrong)
    if qos is Qos.BATCH and (critical or hands_off):
        who = "a static pod or one of the system" if critical else f"{HANDS_OFF} = true"
        wrong.append(f"{who} cannot be batch")
        qos = Qos.MID
    bind, exclusive, near = _numa(annotations, qos, wrong)
    return Wishes(
        qos=qos,
        priority=_priority(labels, priced, settings.priority_label, wrong),
        numa_bind=bind and not hands_off,
        exclusive=exclusive and not hands_off,
        near="" if hands_off else near,
        hands_off=hands_off,
        critical=critical,
        wrong=tuple(wrong),
    )


def is_critical(namespace: str, annotations: Texts, priced: Priced) -> bool:
    """Static pods, those of kube-system, and whatever the system needs by its priority."""
    static = CONFIG_MIRROR in annotations or annotations.get(CONFIG_SOURCE, "api") != "api"
    return static or namespace == "kube-system" or (priced.value or 0) >= SYSTEM_CRITICAL


def _qos(labels: Texts, key: str, wrong: list[str]) -> Qos | None:
    label = key if key in labels else KOORDINATOR_QOS
    if label not in labels:
        return None
    words = _KOORDINATOR if label == KOORDINATOR_QOS else _OWN
    found = words.get(labels[label].strip().lower())
    if found is None:
        wrong.append(_unknown(label, labels[label], words))
    return found or Qos.MID


def _priority(labels: Texts, priced: Priced, key: str, wrong: list[str]) -> Priority:
    if key in labels:
        found = _PRIORITIES.get(labels[key].strip().lower())
        if found is None:
            wrong.append(_unknown(key, labels[key], _PRIORITIES))
        return found or Priority.MEDIUM
    for name in (labels.get(KOORDINATOR_PRIORITY, ""), priced.name):
        if name in _KOORDINATOR_PRIORITIES:
            return _KOORDINATOR_PRIORITIES[name]
        if found := _PRIORITIES.get(name.rpartition("-")[2]):
            return found
    value = priced.value or 0
    if value < 0 or value in KOORDINATOR_FREE:
        return Priority.LOW
    return Priority.HIGH if value >= HIGH_FROM else Priority.MEDIUM


def _numa(annotations: Texts, qos: Qos | None, wrong: list[str]) -> tuple[bool, bool, str]:
    """(bind, exclusive, near); a pod that is not LS by label may still be so by its path."""
    wish, near = annotations.get(NUMA, ""), annotations.get(NEAR, "")
    if wish not in ("", "bind", "exclusive"):
        wrong.append(_unknown(NUMA, wish, ("bind", "exclusive")))
        wish = ""
    if wish and qos not in (None, Qos.LS):
        wrong.append(f"{NUMA} is for LS pods")
        wish = ""
    if near and not is_device_name(near):
        wrong.append(f"{NEAR} = {near[:40]!a} is no name of a NIC or GPU")
        near = ""
    return bool(wish), wish == "exclusive", near if wish else ""


def _flag(annotations: Texts, wrong: list[str]) -> bool:
    text = annotations.get(HANDS_OFF, "false")
    if text not in ("true", "false"):
        wrong.append(_unknown(HANDS_OFF, text, ("true", "false")))
    return text != "false"  # when in doubt nothing of it is written


def _unknown(key: str, found: str, words: Mapping[str, object] | tuple[str, ...]) -> str:
    return f"{key} = {found[:40]!a}: takes {', '.join(words)}"
