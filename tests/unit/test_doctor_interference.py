"""The doctor says what tells of interference on a node: on captured trees, and on this machine."""

from __future__ import annotations

from pathlib import Path

from nodeagent.doctor import Status, examine
from nodeagent.doctor.interference import INTERFERENCE
from tests.unit.test_doctor import by_name, configured, v2_host


def test_a_node_with_everything_but_counters_says_what_stands_in(tmp_path: Path) -> None:
    host = v2_host(tmp_path, "cpu.pressure", "memory.pressure", "io.pressure")
    files = {
        "proc/stat": "cpu  1 2 3\n",
        "proc/diskstats": "259 0 vda\n",
        "proc/1/schedstat": "1 2 3\n",
        "proc/1/net/snmp": "Tcp: a\n",
        "proc/1/net/netstat": "TcpExt: a\n",
        "sys/fs/cgroup/memory.stat": "workingset_refault_file 0\npgscan_direct 0\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu io memory\n",
        "sys/fs/resctrl/info/L3_MON/mon_features": "llc_occupancy\nmbm_local_bytes\n",
    }
    for name, text in files.items():
        path = Path(host) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = by_name(examine(configured(tmp_path, host), INTERFERENCE))
    assert found["signs: CPU"].found == "cpu.stall, cpu.run_delay, cpu.throttled, cpu.steal"
    assert found["signs: memory"].found == "memory.stall, memory.refaults, memory.direct_reclaim"
    assert found["signs: I/O"].found == "io.stall, io.await"
    assert found["signs: network"].found == "net.retransmits, net.listen_drops, cpu.softirq"
    assert {found[name].status for name in found if name != "signs: cache"} == {Status.OK}
    cache = found["signs: cache"]
    assert "llc.bytes" in cache.found.partition("; not ")[0]
    assert cache.found.endswith("memory.bandwidth") and cache.status is Status.INFO and cache.fix


def test_a_node_that_tells_nothing_of_cpu_is_worth_a_warning(tmp_path: Path) -> None:
    host = v2_host(tmp_path)
    (Path(host) / "sys/fs/cgroup/cgroup.controllers").write_text("memory\n")
    found = by_name(examine(configured(tmp_path, host), INTERFERENCE))
    assert found["signs: CPU"].status is Status.WARN
    assert found["signs: CPU"].found == "none; not cpu.stall, cpu.run_delay, cpu.throttled, cpu.steal"
    assert "run-queue delay" in found["signs: CPU"].fix


def test_who_does_not_look_is_told_so(tmp_path: Path) -> None:
    config = configured(tmp_path, v2_host(tmp_path), interference__detect="false")
    (finding,) = examine(config, INTERFERENCE)
    assert (finding.status, finding.found) == (
        Status.INFO,
        "not looked for: interference.detect is false",
    )


def test_the_machine_of_the_tests_tells_something_of_cpu(tmp_path: Path) -> None:
    found = by_name(examine(configured(tmp_path), INTERFERENCE))
    assert not found["signs: CPU"].found.startswith("none")
