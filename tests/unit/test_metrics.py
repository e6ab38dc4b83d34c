"""What /metrics shows: readings in base units, decisions, own counters; nothing that is not known."""

from __future__ import annotations

import threading
from math import inf

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.capacity import Amount, Term
from nodeagent.model.decision import Tick
from nodeagent.model.plan import Change, Kind, Knob, Outcome, Setting
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import MemoryEvents, Reading, Stall
from nodeagent.report.metrics import Metrics
from tests.unit import samples
from tests.unit.metric_pages import OWN, busy_tick, named, page, values, with_pods


def test_readings_are_shown_in_base_units() -> None:
    reading = Reading(
        cpu_us=1_234_567,
        periods=7,
        throttled_periods=3,
        throttled_us=500_000,
        cpu_stall=Stall(2_000_000, 1_000_001),
        memory_bytes=3000,
        inactive_file_bytes=1000,
        anon_bytes=1500,
        file_bytes=1200,
        memory_events=MemoryEvents(oom_kill=2),
        memory_stall=Stall(10, None),
        io_stall=Stall(20, 5),
        pids=9,
    )
    text = page(with_pods(named("a", reading=reading)))
    expected = {
        "cpu_usage_seconds_total": 1.234567,
        "cpu_throttled_seconds_total": 0.5,
        "cpu_periods_total": 7,
        "cpu_throttled_periods_total": 3,
        "pressure_cpu_waiting_seconds_total": 2.0,
        "pressure_cpu_stalled_seconds_total": 1.000001,
        "pressure_memory_waiting_seconds_total": 0.00001,
        "pressure_io_waiting_seconds_total": 0.00002,
        "pressure_io_stalled_seconds_total": 0.000005,
        "memory_usage_bytes": 3000,
        "memory_working_set_bytes": 2000,
        "memory_anon_bytes": 1500,
        "memory_file_bytes": 1200,
        "memory_oom_kills_total": 2,
        "pids": 9,
    }
    shown = {name: value for name, value in pod_values(text).items() if "quota" not in name}
    assert shown == expected


def pod_values(text: str) -> dict[str, float]:
    return {
        sample.name.removeprefix("nodeagent_pod_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("pod") == "a"
    }


def test_what_is_not_known_has_no_series_and_zero_has_one() -> None:
    text = page(with_pods(named("a", 0, Reading(cpu_us=0)), named("b", 1, Reading(memory_bytes=5))))
    assert values(text, "nodeagent_pod_cpu_usage_seconds_total") == {"pod=a,qos=ls": 0.0}
    assert values(text, "nodeagent_pod_memory_usage_bytes") == {"pod=b,qos=ls": 5.0}
    assert "nodeagent_pod_pids" not in text


def test_a_reading_that_comes_and_goes_changes_its_own_series_only() -> None:
    full, hollow = named("a"), named("b", 1, Reading(cpu_us=4_000_000))
    whole = named("b", 1)
    text = page(with_pods(full, whole), with_pods(full, hollow), with_pods(full, whole))
    assert len(values(text, "nodeagent_pod_pids")) == 2
    text = page(with_pods(full, whole), with_pods(full, hollow))
    assert set(values(text, "nodeagent_pod_pids")) == {"pod=a,qos=ls"}
    assert values(text, "nodeagent_pod_cpu_usage_seconds_total")["pod=b,qos=ls"] == 4.0


def test_a_dead_pod_leaves_no_series() -> None:
    metrics = Metrics("0.1")
    metrics.observe_tick(with_pods(named("a"), named("b", 1)), 0.0, OWN)
    assert b'pod="b"' in metrics.render()
    metrics.observe_tick(with_pods(named("a"), seq=2), 0.0, OWN)
    assert b'pod="b"' not in metrics.render()
    metrics.observe_tick(with_pods(seq=3), 0.0, OWN)
    assert b"nodeagent_pod_" not in metrics.render()


def test_quota_wanted_and_found_are_two_series_and_no_limit_is_infinite() -> None:
    pods = (named("a", 0, qos=Qos.BATCH), named("b", 1, qos=Qos.BATCH), named("c", 2))
    cgroups = [pod.spec.cgroup for pod in pods]
    tick = with_pods(*pods)
    knobs = tuple(Knob(Kind.CPU_QUOTA, cgroup) for cgroup in cgroups)
    plan = (Setting(knobs[0], 0.5, "q", "w"), Setting(knobs[1], inf, "q", "w"))
    found = (samples.quota_knob(cgroups[0], 2.0), samples.quota_knob(cgroups[1]))
    outcomes = (
        Outcome(Change(knobs[0], 2.0, 0.5, "w"), 0.5),
        Outcome(Change(knobs[1], inf, 1.0, "w"), None, "x"),
    )
    tick = Tick(replace(tick.snapshot, knobs=found), replace(tick.decision, plan=plan), (), outcomes)
    text = page(tick)
    target = values(text, "nodeagent_pod_cpu_quota_target_cores")
    assert target == {"pod=a,qos=batch": 0.5, "pod=b,qos=batch": inf}
    assert 'target_cores{pod="b",qos="batch"} +Inf' in text
    applied = values(text, "nodeagent_pod_cpu_quota_applied_cores")
    assert applied == {"pod=a,qos=batch": 0.5, "pod=b,qos=batch": inf}


def test_the_offer_is_shown_with_terms_and_zones() -> None:
    tick = samples.tick(1)
    text = page(tick)
    offer = tick.decision.capacity
    assert values(text, "nodeagent_offline_available_cores") == {"": offer.cpu.available}
    assert values(text, "nodeagent_offline_available_bytes") == {"": offer.memory.available}
    terms = {f"term={term.name}": term.value for term in offer.cpu.terms}
    assert values(text, "nodeagent_offline_cpu_term_cores") == terms
    assert values(text, "nodeagent_numa_offline_available_cores") == {
        "numa_node=0": offer.zones[0].cpu.available
    }
    assert values(text, "nodeagent_lent_core_seconds_total") == {"": offer.lent.used_core_s}
    assert values(text, "nodeagent_offline_withdrawn") == {"": 0.0}
    assert values(text, "nodeagent_batch_limit_cores") == {"": 2.0}


def test_a_ratio_is_not_shown_among_cores_or_bytes() -> None:
    tick = samples.tick(1)
    offer = tick.decision.capacity
    terms = (Term("ceiling_ratio", 0.9, "policy", 0.0), Term("total", 8.5, "", 0.0))
    capacity = replace(offer, cpu=Amount(1.0, 1.0, terms), memory=Amount(2.75, 1.0, terms))
    text = page(replace(tick, decision=replace(tick.decision, capacity=capacity)))
    assert values(text, "nodeagent_offline_cpu_term_cores") == {"term=total": 8.5}
    assert values(text, "nodeagent_offline_cpu_ceiling_ratio") == {"": 0.9}
    assert values(text, "nodeagent_offline_memory_term_bytes") == {"term=total": 8.0}
    assert values(text, "nodeagent_offline_memory_ceiling_ratio") == {"": 0.9}
    assert values(text, "nodeagent_offline_available_bytes") == {"": 2.0}


def test_a_withdrawn_offer_and_an_unknown_limit_are_shown_as_such() -> None:
    tick = samples.tick(1)
    capacity = replace(tick.decision.capacity, withdrawn="blind")
    decision = replace(tick.decision, capacity=capacity, batch_limit_cores=None)
    text = page(replace(tick, decision=decision))
    assert values(text, "nodeagent_offline_withdrawn") == {"": 1.0}
    assert "nodeagent_batch_limit_cores" not in text


def test_the_memory_of_each_numa_node_is_shown_by_whose_it_is() -> None:
    tick = samples.tick(1)
    seen = samples.snapshot(1, pods=4, numa_nodes=2)
    pages = [((0, 100), (1, 20)), ((0, 1),), None, ((1, 7), (0, 0))]  # LS, MID, LS, BATCH
    pods = tuple(
        replace(pod, reading=replace(pod.reading, pages_by_node=where))
        for pod, where in zip(seen.pods, pages, strict=True)
    )
    text = page(replace(tick, snapshot=replace(seen, pods=pods)))
    assert values(text, "nodeagent_numa_online_pages_bytes") == {"numa_node=0": 101, "numa_node=1": 20}
    assert values(text, "nodeagent_numa_batch_pages_bytes") == {"numa_node=0": 0, "numa_node=1": 7}
    free = {f"numa_node={row.numa_node}": row.free_bytes for row in seen.node.numa_memory}
    assert values(text, "nodeagent_numa_memory_free_bytes") == free
    row = seen.node.numa_memory[1]
    droppable = (row.inactive_file_bytes or 0) + (row.reclaimable_bytes or 0)
    assert values(text, "nodeagent_numa_memory_reclaimable_bytes")["numa_node=1"] == droppable
    assert values(text, "nodeagent_numa_memory_total_bytes")["numa_node=0"] == row.total_bytes


def test_own_counters_add_up_over_ticks() -> None:
    text = page(busy_tick(), busy_tick())
    assert values(text, "nodeagent_ticks_total")["woken_by=timer"] == 2
    assert values(text, "nodeagent_misses_total")["kind=gone"] == 4
    assert values(text, "nodeagent_drifts_total")["kind=cpu.quota"] == 2  # the same two, seen in both ticks
    changes = values(text, "nodeagent_changes_total")
    assert changes["kind=cpu.quota,outcome=error"] == 2
    assert changes["kind=cpu.quota,outcome=ok"] == 2 * len(samples.tick(2, pods=8).outcomes)
    assert values(text, "nodeagent_tick_duration_seconds_count") == {"": 2}
    assert values(text, "nodeagent_self_cpu_seconds_total") == {"": 1.5}
    assert values(text, "nodeagent_self_resident_memory_bytes") == {"": 40 << 20}
    assert values(text, "nodeagent_build_info") == {"revision=abc,version=0.1": 1}


def test_journal_reload_and_skipped_ticks_are_counted() -> None:
    metrics = Metrics("0.1")
    metrics.journal(writing=False, size_bytes=77)
    metrics.reloaded(ok=False)
    metrics.skip_tick()
    text = metrics.render().decode()
    assert values(text, "nodeagent_journal_writing") == {"": 0}
    assert values(text, "nodeagent_journal_size_bytes") == {"": 77}
    assert values(text, "nodeagent_config_reloads_total")["outcome=error"] == 1
    assert values(text, "nodeagent_config_last_reload_successful") == {"": 0}
    assert values(text, "nodeagent_ticks_skipped_total") == {"": 1}


def test_how_late_ticks_are_is_told_of_those_that_were_due() -> None:
    metrics = Metrics("0.1")
    metrics.paced(0.0004, 0, first=True)
    metrics.paced(None, 2, first=True)
    metrics.paced(0.3, 1, first=False)
    text = metrics.render().decode()
    late = values(text, "nodeagent_tick_lateness_seconds_bucket")
    assert (late["le=0.001"], late["le=0.25"], late["le=+Inf"]) == (1, 1, 2)
    assert values(text, "nodeagent_tick_lateness_seconds_count") == {"": 2}
    assert values(text, "nodeagent_ticks_missed_total") == {"": 3}
    assert values(text, "nodeagent_realtime") == {"": 0}


def test_beyond_the_cap_batch_pods_are_left_out_first_and_counted() -> None:
    pods = samples.mixed_pods(40, 1000.0)
    tick = with_pods(*pods)
    full = page(tick)
    all_series = sum(line[0] != "#" for line in full.splitlines())
    capped = page(tick, max_series=500)
    series = [line for line in capped.splitlines() if "{pod=" in line]
    dropped = values(capped, "nodeagent_metrics_dropped_series")[""]
    assert len(series) > 200
    assert sum(line[0] != "#" for line in capped.splitlines()) <= 500
    assert len(series) + dropped == sum("{pod=" in line for line in full.splitlines())
    assert 'qos="batch"' not in capped.replace('nodeagent_pods{qos="batch"}', "")
    assert values(full, "nodeagent_metrics_dropped_series") == {"": 0}
    assert all_series > 500
    assert values(page(tick, max_series=0), "nodeagent_pods")["qos=ls"] == 20  # the node is always shown


def test_the_part_of_a_tick_is_rendered_once() -> None:
    metrics = Metrics("0.1")
    metrics.observe_tick(samples.tick(1), 0.0, OWN)
    metrics.render()
    made = metrics._page
    metrics.render()
    assert metrics._page is made
    metrics.observe_tick(samples.tick(2), 0.0, OWN)
    metrics.render()
    assert metrics._page is not made


def test_scrapes_at_once_while_the_loop_goes_on_see_whole_pages() -> None:
    metrics = Metrics("0.1")
    metrics.observe_tick(samples.tick(1, pods=30), 0.0, OWN)
    wrong: list[str] = []

    def scrape() -> None:
        for _ in range(30):
            text = metrics.render().decode()
            if text.count("nodeagent_pod_cpu_usage_seconds_total{") not in (30, 50):
                wrong.append(text)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    for seq in range(2, 60):
        metrics.observe_tick(samples.tick(seq, pods=30 if seq % 2 else 50), 0.0, OWN)
    for thread in threads:
        thread.join(30.0)
    assert not wrong
