"""/metrics is clean by Prometheus' rules, and whatever a pod is called stays inside its label."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.snapshot import Reading
from tests.unit.metric_pages import busy_tick, named, page, values, with_pods

BASE_UNITS = ("seconds", "bytes", "cores", "ratio", "info")


def parsed(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    text = page(busy_tick()).encode()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_family_has_help_type_and_a_name_by_the_conventions() -> None:
    text = page(busy_tick())
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE) == [name for name, _ in names]
    assert len(names) == len({name for name, _ in names}) > 40
    for name, kind in names:
        assert re.fullmatch(r"nodeagent_[a-z0-9_]+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|us|ns|milliseconds|kb|mb|percent|counter|gauge|created)(_|$)", name), name
    shown = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[0] != "#"}
    typed = {name for name, _ in names}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == typed
    assert all(
        any(unit in name for unit in BASE_UNITS) for name in typed if "usage" in name or "duration" in name
    )


def test_labels_hold_no_ids_and_no_paths() -> None:
    tick = busy_tick()
    labels = set(re.findall(r"[{,]([a-z_]+)=", page(tick)))
    assert labels == {
        "pod",
        "qos",
        "term",
        "numa_node",
        "signal",
        "nic",
        "direction",
        "step",
        "by",
        "woken_by",
        "kind",
        "outcome",
        "version",
        "revision",
        "le",
        "channel",
        "gate",
        "result",
        "rung",
        "state",
    }
    assert "nodeagent/batch" not in page(tick)


def test_two_pods_of_one_name_keep_their_own_series_whatever_their_order() -> None:
    first, second = named("web", 1), named("web", 2)
    third = named("web~2", 3)
    for pods in ((first, second, third), (third, second, first)):
        text = page(with_pods(*pods))
        shown = values(text, "nodeagent_pod_cpu_usage_seconds_total")
        assert shown["pod=web,qos=ls"] == pytest.approx((first.reading.cpu_us or 0) / 1e6)
        assert shown["pod=web~2,qos=ls"] == pytest.approx((second.reading.cpu_us or 0) / 1e6)
        assert len(shown) == 3


def test_names_that_look_alike_when_printed_are_still_two_series() -> None:
    text = page(with_pods(named("\udcff", 0), named("\\udcff", 1)))
    assert len(values(text, "nodeagent_pod_pids")) == 2


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_any_name_is_one_label_and_reads_back(names: list[str]) -> None:
    text = page(with_pods(*(named(name, i) for i, name in enumerate(names))))
    samples_ = parsed(text)["nodeagent_pod_pids"].samples
    shown = [sample.labels["pod"] for sample in samples_]
    assert len(set(shown)) == len(names)
    assert {name for name in names if "\\" not in name} <= set(shown)


@pytest.mark.parametrize(
    "name", ["50%d", "%s%s%s%%", 'a"b', "a\\b", "a\nb", 'x"} 1\nevil{a="', "café", "\udcff"]
)
def test_a_hostile_name_stays_inside_its_label(name: str) -> None:
    whole, hollow = named(name), named(name, 1, Reading(cpu_us=1))
    for pods in ((whole,), (whole, hollow)):
        text = page(with_pods(*pods))
        assert "evil" not in parsed(text)
        label = "\\udcff" if name == "\udcff" else name
        assert parsed(text)["nodeagent_pod_cpu_usage_seconds"].samples[0].labels["pod"] == label


@pytest.mark.parametrize("huge", [2**65, 10**400])
def test_a_number_that_no_counter_can_hold_does_no_harm(huge: int) -> None:
    text = page(with_pods(named("a", 0, Reading(cpu_us=huge, pids=1)), named("b", 1, Reading(cpu_us=1))))
    assert values(text, "nodeagent_pod_cpu_usage_seconds_total")["pod=b,qos=ls"] == 1e-6
    assert values(text, "nodeagent_pod_pids") == {"pod=a,qos=ls": 1.0}
