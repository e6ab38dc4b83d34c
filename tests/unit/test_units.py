"""Which cgroup is which unit, and values as properties of units and back."""

from __future__ import annotations

import math
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nodeagent.keep import Keeper
from nodeagent.kernel.cgroup import Found
from nodeagent.kernel.cgroup_v2 import CpusetV2, CpuV2
from nodeagent.kernel.remember import whole_percents
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import Refused
from nodeagent.model.plan import Change, Held, Kept, Kind, Knob, KnobReading, Outcome, Value
from nodeagent.originals import Originals
from nodeagent.units import dropins
from nodeagent.units.bus import Bus, booted, reachable
from nodeagent.units.names import unit_of
from nodeagent.units.properties import INFINITY, property_of, raw, value

BOOT = "2c5f0a66-93a5-4d0b-a9c8-6a8f4a1d7f10"
QUOTA = Knob(Kind.CPU_QUOTA, "batch.slice/job.service")
WORD = st.text("abc0@\\_:.", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("system.slice/nginx.service", "nginx.service"),
        ("system.slice/docker-1f2e.scope", "docker-1f2e.scope"),
        ("a.slice/a-b.slice/a-b-c.slice", "a-b-c.slice"),
        ("a.slice/a-b.slice/job@7.service", "job@7.service"),
        ("system.slice/system-foo.slice/foo@a\\x2db.service", "foo@a\\x2db.service"),
        ("system.slice/_cpu.service", "cpu.service"),
        ("job.service", "job.service"),
        ("system.slice/job\udcff.service", None),
        ("system.slice/jöb.service", None),
        ("system.slice/a b.service", None),
        ("kubepods.slice/kubepods-besteffort.slice/cri-containerd-ab.scope", "cri-containerd-ab.scope"),
        ("user.slice/user-0.slice/user@0.service", "user@0.service"),
        ("user.slice/user-0.slice/user@0.service/app.slice", None),
        ("user.slice/user-0.slice/user@0.service/app.slice/x.service", None),
        ("machine.slice/x.scope/system.slice/y.service", None),
        ("a-b.slice", None),
        ("b.slice/a-b.slice", None),
        ("a.slice/a--b.slice", None),
        ("-.slice", None),
        (".slice", None),
        ("init.scope", None),
        ("nodeagent/batch", None),
        ("nodeagent/batch/x.service", None),
        ("system.slice/dev-hugepages.mount", None),
        ("", None),
        ("a.slice/", None),
        (f"{'a' * 300}.slice", None),
    ],
)
def test_a_path_is_a_unit_where_systemd_would_put_that_unit(path: str, unit: str | None) -> None:
    assert unit_of(path) == unit


@given(st.lists(WORD, min_size=1, max_size=5), WORD)
def test_every_slice_and_every_service_in_it_is_found_and_nothing_inside_the_service(
    words: list[str], name: str
) -> None:
    assume(not any(word[0] in "_." for word in words) and name[0] not in "_.")
    names = ["-".join(words[:n]) + ".slice" for n in range(1, len(words) + 1)]
    path = "/".join(names)
    assert unit_of(path) == names[-1]
    assert unit_of(f"{path}/{name}.service") == f"{name}.service"
    assert unit_of(f"{path}/{name}.service/{name}.service") is None
    assert unit_of(f"{path}/{name}.service/{path}") is None


@given(st.integers(1000, 10**6), st.integers(1000, 10**6))
def test_systemd_computes_from_the_property_the_very_quota_of_the_file(quota_us: int, period_us: int) -> None:
    prop = property_of(Kind.CPU_QUOTA, 2)
    assert prop is not None
    per_second = raw(Kind.CPU_QUOTA, prop, quota_us / period_us)
    assert isinstance(per_second, int)
    assert per_second * period_us // 1_000_000 == quota_us


@given(st.integers(1, 10_000))
def test_a_weight_goes_to_systemd_and_back(weight: int) -> None:
    prop = property_of(Kind.CPU_WEIGHT, 2)
    assert prop is not None
    told = raw(Kind.CPU_WEIGHT, prop, weight / 100)
    assert told == (INFINITY if weight == 100 else weight)  # the default is what "not set" means
    assert value(Kind.CPU_WEIGHT, prop, told) == weight / 100


@given(st.frozensets(st.integers(0, 1000)))
def test_a_set_goes_to_systemd_as_bits_and_back(numbers: frozenset[int]) -> None:
    for kind in (Kind.CPUS, Kind.MEMS):
        prop = property_of(kind, 2)
        assert prop is not None
        bits = raw(kind, prop, str(CpuSet(numbers)))
        assert isinstance(bits, bytes)
        assert all(bool(bits[n // 8] >> n % 8 & 1) for n in numbers)
        assert value(kind, prop, bits) == str(CpuSet(numbers))


@pytest.mark.parametrize(
    ("kind", "version", "wanted", "name", "told"),
    [
        (Kind.CPU_QUOTA, 2, math.inf, "CPUQuotaPerSecUSec", INFINITY),
        (Kind.CPU_QUOTA, 1, 0.5, "CPUQuotaPerSecUSec", 500_000),
        (Kind.CPU_WEIGHT, 2, 0.0, "CPUWeight", 0),
        (Kind.CPU_WEIGHT, 1, 2.0, "CPUShares", 2048),
        (Kind.CPU_WEIGHT, 1, 1.0, "CPUShares", INFINITY),
        (Kind.CPU_WEIGHT, 1, 0.0, "CPUShares", None),
        (Kind.CPUS, 2, "0-1,9", "AllowedCPUs", b"\x03\x02"),
        (Kind.CPUS, 2, "", "AllowedCPUs", b""),
        (Kind.MEMS, 2, "1", "AllowedMemoryNodes", b"\x02"),
    ],
)
def test_values_as_systemd_takes_them(
    kind: Kind, version: int, wanted: Value, name: str, told: int | bytes | None
) -> None:
    prop = property_of(kind, version)
    assert prop is not None and prop.name == name
    assert raw(kind, prop, wanted) == told
    assert told is None or value(kind, prop, told) == wanted


def test_what_a_reload_does_not_touch_has_no_property() -> None:
    assert [property_of(kind, 1) for kind in (Kind.CPUS, Kind.MEMS, Kind.MIGRATE)] == [None] * 3
    assert property_of(Kind.MIGRATE, 2) is None


@pytest.mark.parametrize("home", ["system.control", "transient"])
def test_a_drop_in_is_removed_with_its_directory_and_those_of_others_are_left(
    tmp_path: Path, home: str
) -> None:
    root, directory = str(tmp_path), tmp_path / f"run/systemd/{home}/x.service.d"
    directory.mkdir(parents=True)
    for name in ("CPUQuota", "CPUWeight"):
        (directory / f"50-{name}.conf").write_text("")
        assert dropins.exists(root, "x.service", name)
    assert dropins.remove(root, "x.service", "CPUQuota") == ""
    assert [path.name for path in directory.iterdir()] == ["50-CPUWeight.conf"]
    assert dropins.remove(root, "x.service", "CPUWeight") == ""
    assert not directory.exists()
    assert dropins.remove(root, "x.service", "CPUWeight") == ""


def test_a_controller_that_is_off_means_no_limit_and_the_sets_of_the_cgroup_around(tmp_path: Path) -> None:
    (tmp_path / "batch.slice/job.service").mkdir(parents=True)
    (tmp_path / "cpuset.cpus.effective").write_text("0-3\n")
    (tmp_path / "cpuset.mems.effective").write_text("0-1\n")
    (tmp_path / "batch.slice/cpuset.cpus.effective").write_text("0-2\n")
    path = str(tmp_path / "batch.slice/job.service")
    cpu, cpuset = CpuV2(path), CpusetV2(path)
    try:
        assert cpu.unset(Kind.CPU_QUOTA)[:3] == (math.inf, 100_000, 0.01)
        assert cpu.unset(Kind.CPU_WEIGHT)[:4] == (1.0, 100, 0.01, 100.0)
        assert (cpuset.unset(Kind.CPUS).actual, cpuset.unset(Kind.CPUS).effective) == ("", "0-2")
        assert (cpuset.unset(Kind.MEMS).actual, cpuset.unset(Kind.MEMS).effective) == ("", "0-1")
    finally:
        cpu.close()
        cpuset.close()


@pytest.mark.parametrize(
    ("scale", "low", "fits", "lowest"),
    [
        (100_000, 0.01, 100, 0.01),
        (10_000, 0.125, 100, 0.13),
        (10**6, 0.001, 100, 0.01),
        (1234, 0.9, 1234, 0.9),
    ],
)
def test_the_quota_of_a_unit_is_set_in_whole_percents_where_its_period_allows(
    scale: int, low: float, fits: int, lowest: float
) -> None:
    found = whole_percents(Found(0.12345, scale, low, 100.0))
    assert found == Found(0.12345, fits, lowest, 100.0)


def inode_of(knob: Knob) -> int | None:
    return 7


def held(tmp_path: Path) -> Originals:
    """A ledger that holds QUOTA at half a core, which systemd was told to keep."""
    originals = Originals(str(tmp_path), BOOT)
    change = Change(QUOTA, math.inf, 0.5, "test", "test")
    originals.intend([change], inode_of)
    originals.confirm([Outcome(change, 0.5)])
    originals.keep({QUOTA: Kept(0.5, math.inf, True)})
    return originals


def test_what_systemd_keeps_survives_a_crash(tmp_path: Path) -> None:
    first = held(tmp_path)
    again = Originals(str(tmp_path), BOOT)
    assert again.held == first.held
    assert again.held[QUOTA] == Held(QUOTA, 7, math.inf, 0.5, None, Kept(0.5, math.inf, True))
    assert again.warnings == []


def test_a_knob_is_held_until_systemd_has_let_go_of_it_too(tmp_path: Path) -> None:
    originals = held(tmp_path)
    back = Change(QUOTA, 0.5, math.inf, "test", gives_back=True)
    originals.intend([back], inode_of)
    originals.confirm([Outcome(back, math.inf)])
    assert originals.held[QUOTA] == Held(QUOTA, 7, math.inf, None, None, Kept(0.5, math.inf, True))
    originals.keep({QUOTA: None})
    again = Change(QUOTA, math.inf, math.inf, "test", gives_back=True)
    originals.intend([again], inode_of)
    originals.confirm([Outcome(again, math.inf)])
    assert dict(originals.held) == {}


def test_a_new_cgroup_that_begins_with_our_value_is_held_as_the_old_one_was(tmp_path: Path) -> None:
    originals = held(tmp_path)
    begun = KnobReading(QUOTA, 0.5, original=math.inf, written=0.5)
    originals.recognise([begun], lambda _knob: 8)
    assert originals.held[QUOTA].inode == 8
    assert originals.held[QUOTA].original == math.inf
    assert Originals(str(tmp_path), BOOT).held == originals.held


def test_an_older_value_that_systemd_puts_back_is_ours() -> None:
    was = Held(QUOTA, 7, math.inf, 0.8, None, Kept(0.5, math.inf, True))
    assert was.explains(0.5) and was.explains(0.8) and not was.explains(0.6)
    assert was.lasts(0.5) and not was.lasts(0.8)


def test_without_systemd_nothing_is_told_and_nothing_is_said(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path / "state"), BOOT)
    keeper = Keeper(str(tmp_path), {"cpu": 2, "cpuset": 2}, originals)
    change = Change(QUOTA, math.inf, 0.5, "test", "test")
    originals.intend([change], inode_of)
    keeper.begin([change])
    originals.confirm([Outcome(change, 0.5)])
    keeper.look([KnobReading(QUOTA, 0.5, original=math.inf)])
    keeper.follow([Outcome(change, 0.5)])
    assert keeper.release({QUOTA: None}) == frozenset()
    assert (keeper.news, keeper.gives(QUOTA.target), originals.held[QUOTA].kept) == ([], False, None)


def test_a_systemd_that_does_not_listen_is_said_once_and_left_in_peace(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert booted(str(tmp_path)) and reachable(str(tmp_path))
    originals = held(tmp_path / "state")
    keeper = Keeper(str(tmp_path), {"cpu": 2, "cpuset": 2}, originals)
    for _ in range(3):
        assert keeper.release({QUOTA: None}) == {QUOTA}
    assert len(keeper.news) == 1 and "No such file" in keeper.news[0]
    assert originals.held[QUOTA].kept is not None


def test_a_systemd_that_hangs_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "run/systemd").mkdir(parents=True)
    directory = os.open(tmp_path / "run/systemd", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"/proc/self/fd/{directory}/private")
        silent.listen()
        os.close(directory)
        began = time.monotonic()
        with pytest.raises(Refused, match="in time"):
            Bus(str(tmp_path), 0.2)
        assert 0.2 <= time.monotonic() - began < 2.0
