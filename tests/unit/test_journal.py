"""Writing the journal and reading it back: what is kept, how it is split, and when it gives up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.journal import Journal, SegmentHead, read_segments
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.capacity import Lent
from nodeagent.model.decision import Drift, Memory, Signal, Tick
from nodeagent.model.plan import Change, Kind, Knob, Outcome
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.model.snapshot import Container, Pod
from nodeagent.model.symptom import AppReading, DeviceUse, Disk, Pmu, Rdt, Slo, Symptoms
from tests.unit import samples
from tests.unit.nic_samples import nic_tick

POLICY = Policy()
KNOB = Knob(Kind.CPU_QUOTA, "nodeagent/batch")


def write(state: Path, ticks: list[Tick], **how: int) -> Journal:
    journal = Journal(state, **how)
    for tick in ticks:
        journal.append(tick, POLICY, Memory(lent=Lent(float(tick.snapshot.seq))))
        assert journal.stopped == ""
    journal.close()
    return journal


def read(state: Path) -> tuple[list[SegmentHead], list[Tick], list[str]]:
    warnings: list[str] = []
    heads: list[SegmentHead] = []
    ticks: list[Tick] = []
    for segment in read_segments(state / "journal", warnings.append):
        heads.append(segment.head)
        ticks += segment.ticks()
    return heads, ticks, warnings


def files(state: Path) -> list[Path]:
    return sorted((state / "journal").iterdir())


def test_ticks_come_back_as_they_were_written(tmp_path: Path) -> None:
    ticks = [samples.tick(seq, pods=seq % 5) for seq in range(1, 30)]
    journal = write(tmp_path, ticks)
    heads, got, warnings = read(tmp_path)
    assert (got, warnings) == (ticks, [])
    assert journal.ticks_written == len(ticks)
    assert journal.bytes == sum(file.stat().st_size for file in files(tmp_path))
    assert heads[0].policy == POLICY
    assert heads[0].memory == Memory(lent=Lent(1.0))


@given(kept=st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=8))
def test_what_a_tick_has_of_the_one_before_comes_back_as_well(kept: list[list[bool]]) -> None:
    """Of each pod (by place) the readings are those of before, or new; the knobs are as the first pod is."""
    ticks = [samples.tick(0, pods=4)]
    for seq, places in enumerate(kept, start=1):
        tick, before = samples.tick(seq, pods=4), ticks[-1].snapshot
        pods = tuple(
            before.pods[n] if keep and n < len(before.pods) else tick.snapshot.pods[n]
            for n, keep in enumerate(places)
        )
        knobs = before.knobs if places[:1] == [True] else tick.snapshot.knobs
        ticks.append(replace(tick, snapshot=replace(tick.snapshot, pods=pods, knobs=knobs)))
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), ticks)
        assert read(Path(directory))[1:] == (ticks, [])


def test_pods_that_rest_take_next_to_nothing(tmp_path: Path) -> None:
    tick = samples.tick(1, pods=100)
    busy = [samples.tick(seq, pods=100) for seq in range(2, 12)]
    rest = [replace(t, snapshot=replace(t.snapshot, pods=tick.snapshot.pods)) for t in busy]
    sizes = [write(tmp_path / name, [tick, *ticks]).bytes for name, ticks in (("busy", busy), ("rest", rest))]
    assert sizes[1] < 0.6 * sizes[0]


def test_rare_fields_and_unlimited_values_come_back(tmp_path: Path) -> None:
    plain = samples.tick(1)
    change = Change(KNOB, float("inf"), 1.5, "why", "batch_quota", gives_back=True)
    decision = replace(
        plain.decision,
        signals=(Signal("ls_stall", "pod1", 0.3, 1000.0, "cpu some 30 %"),),
        yielded=(KNOB,),
        drifts=(Drift(KNOB, 3, 1000.0, 1060.0, float("inf")),),
        batch_limit_cores=None,
    )
    unsupported = ("cpu_stall", "memory_stall", "io_stall")
    pods = (
        samples.pod(7, 1001.0, unsupported=unsupported, containers=3),
        samples.pod(8, 1001.0, containers=0),
    )
    snapshot = replace(plain.snapshot, pods=pods, misses={"gone": 2}, woken_by="psi")
    tick = Tick(snapshot, decision, (change,), (Outcome(change, None, "refused"),))
    write(tmp_path, [plain, tick, plain])
    assert read(tmp_path)[1] == [plain, tick, plain]


def test_symptoms_and_what_applications_tell_are_written_when_they_are_new_and_come_back() -> None:
    def told(pods: int, **fields: object) -> Tick:
        tick = samples.tick(1, pods=4)
        snapshot = replace(
            tick.snapshot,
            pods=tuple(replace(pod, **fields) for pod in tick.snapshot.pods[:pods]),
            node=replace(tick.snapshot.node, disks=(Disk("259:0", "nvme0n1", 5, 700, 300),)),
        )
        return replace(tick, snapshot=snapshot)

    symptoms = Symptoms(
        4711.0, 1, 2, 0.5, 3, 4, 5, (DeviceUse("259:0", 6, 7),), 8, 9, 10, 11, Pmu(1.0, 10.0, 2, 3), Rdt(4, 5)
    )
    app = AppReading("grpc", 4712.0, requests=5, latency_s=((0.99, 0.02),), slo=Slo(0.99, 0.05))
    ticks = [
        told(3),
        told(3, symptoms=symptoms),
        told(3, symptoms=symptoms),
        told(2, symptoms=symptoms, app=app),
        told(4, symptoms=replace(symptoms, at=4716.0)),
        told(4),
    ]
    packer, unpacker = Packer(), Unpacker()
    packed = [packer.pack(each) for each in ticks]
    assert [unpacker.unpack(data) for data in packed] == ticks
    once = msgspec.msgpack.encode(symptoms)
    assert [data.count(once) for data in packed] == [0, 3, 0, 2, 0, 0]


def test_who_is_in_the_network_is_written_once_and_comes_back(tmp_path: Path) -> None:
    ticks = [nic_tick(2), nic_tick(3), nic_tick(4, links=()), samples.tick(5), nic_tick(6)]
    packer, unpacker = Packer(), Unpacker()
    packed = [packer.pack(each) for each in ticks]
    assert [unpacker.unpack(data) for data in packed] == ticks
    assert b"fd00::7" in packed[0] and b"fd00::7" not in packed[1] and b"fd00::7" in packed[2]


def test_a_tick_comes_back_to_the_byte(tmp_path: Path) -> None:
    tick = samples.tick(3, pods=8)
    write(tmp_path, [tick])
    (got,) = read(tmp_path)[1]
    assert msgspec.msgpack.encode(got) == msgspec.msgpack.encode(tick)


def test_the_fields_that_are_packed_by_name_are_all_that_there_are() -> None:
    """A field added to Pod or Container must be added to packed.py too, or it would be lost in silence."""
    assert Pod.__struct_fields__ == (
        "spec", "reading", "containers", "unsupported", "symptoms", "app",
    )  # fmt: skip
    assert Container.__struct_fields__ == ("name", "cgroup", "inode", "reading")


def test_files_are_private_and_named_by_number_and_boot(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write(tmp_path, [samples.tick(1)])
        write(tmp_path, [samples.tick(1)])
    finally:
        os.umask(umask)
    assert [file.name for file in files(tmp_path)] == [
        "000000001-6f1c1a52.journal",
        "000000002-6f1c1a52.journal",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path)} == {0o600}
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700


def test_a_directory_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir(mode=0o755)
    write(tmp_path, [samples.tick(1)])
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700


def test_nothing_is_made_before_the_first_tick(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_segments_go_and_the_total_stays_below_the_cap(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=40_000, segment_bytes=8_000)
    ticks = [samples.tick(seq, pods=20) for seq in range(1, 200)]
    for tick in ticks:
        journal.append(tick, POLICY, Memory())
        sizes = [file.stat().st_size for file in files(tmp_path)]
        assert sum(sizes) == journal.bytes <= 40_000
        assert max(sizes) <= 8_000
    journal.close()
    heads, got, warnings = read(tmp_path)
    assert warnings == []
    assert got == ticks[-len(got) :]
    assert len(heads) > 3
    assert journal.bytes > 30_000


def test_segments_larger_than_the_cap_are_made_smaller(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=20_000, segment_bytes=1 << 30)
    for seq in range(1, 200):
        journal.append(samples.tick(seq, pods=20), POLICY, Memory())
        assert journal.stopped == ""
    assert 10_000 < journal.bytes <= 20_000
    journal.close()


def test_each_segment_begins_with_the_memory_before_its_first_tick(tmp_path: Path) -> None:
    write(
        tmp_path, [samples.tick(seq, pods=20) for seq in range(1, 60)], max_bytes=1 << 20, segment_bytes=8_000
    )
    segments = 0
    for segment in read_segments(tmp_path / "journal", pytest.fail):
        first = next(segment.ticks())
        assert segment.head.memory.lent.used_core_s == first.snapshot.seq
        segments += 1
    assert segments > 3


def test_another_policy_begins_another_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    other = Policy(cpu=CpuPolicy(floor_cores=1.0))
    for seq, policy in enumerate((POLICY, Policy(), other, POLICY)):  # Policy() equals POLICY
        journal.append(samples.tick(seq), policy, Memory())
    journal.close()
    heads, ticks, _ = read(tmp_path)
    assert [head.policy for head in heads] == [POLICY, other, POLICY]
    assert len(ticks) == 4
    assert len({head.run for head in heads}) == 1


def test_old_segments_of_other_runs_count_and_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, [samples.tick(seq, pods=20) for seq in range(1, 30)])
    (tmp_path / "journal" / "notes.txt").write_bytes(b"x" * 50_000)
    before = files(tmp_path)[0].stat().st_size
    journal = Journal(tmp_path, max_bytes=before + 6_000)
    journal.append(samples.tick(1), POLICY, Memory())
    assert len(files(tmp_path)) == 3
    assert journal.bytes > before
    for seq in range(2, 60):
        journal.append(samples.tick(seq, pods=20), POLICY, Memory())
    assert (tmp_path / "journal" / "notes.txt").exists()
    assert not (tmp_path / "journal" / "000000001-6f1c1a52.journal").exists()
    journal.close()


def test_a_tick_larger_than_the_cap_stops_the_journal_and_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1_000)
    journal.append(samples.tick(1, pods=50), POLICY, Memory())
    assert "may have 1000" in journal.stopped
    assert (files(tmp_path), journal.bytes) == ([], 0)


def test_a_tick_that_cannot_be_encoded_stops_the_journal_not_the_agent(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(samples.tick(1), POLICY, Memory())
    bad = samples.tick(2)
    for at, broken in ((1002.0, {"\udcff": 1}), (1100.0, {"gone": 1 << 70})):
        snapshot = replace(bad.snapshot, at=at, misses=broken)
        journal.append(replace(bad, snapshot=snapshot), POLICY, Memory())
        assert journal.stopped
    journal.append(samples.tick(3, at=1200.0), POLICY, Memory())
    assert journal.stopped == ""
    journal.close()
    heads, ticks, warnings = read(tmp_path)
    assert ([tick.snapshot.seq for tick in ticks], warnings, len(heads)) == ([1, 3], [], 2)


def test_a_symbolic_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    journal = Journal(tmp_path)
    journal.append(samples.tick(1), POLICY, Memory())
    assert "Not a directory" in journal.stopped
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    journal = Journal(tmp_path)
    journal.append(samples.tick(1), POLICY, Memory())
    assert str(tmp_path / "journal") in journal.stopped


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    write(
        tmp_path, [samples.tick(seq, pods=20) for seq in range(1, 60)], max_bytes=30_000, segment_bytes=8_000
    )
    stopped = Journal(tmp_path, max_bytes=100)
    stopped.append(samples.tick(1), POLICY, Memory())
    assert stopped.stopped
    assert read(tmp_path)[1]  # a cap that is too small for a tick costs no history either
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_killed_agent_loses_no_tick_that_was_written(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from nodeagent.journal import Journal
from nodeagent.model.decision import Memory
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Container, Pod
from nodeagent.model.symptom import AppReading, DeviceUse, Disk, Pmu, Rdt, Slo, Symptoms
from tests.unit import samples
journal = Journal(Path({str(tmp_path)!r}))
for seq in range(1, 8):
    journal.append(samples.tick(seq), Policy(), Memory())
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -9
    assert [tick.snapshot.seq for tick in read(tmp_path)[1]] == list(range(1, 8))


def test_ticks_of_100_pods_take_less_than_a_tenth_of_their_plain_size(tmp_path: Path) -> None:
    ticks = [replace(samples.tick(seq, pods=100), changes=(), outcomes=()) for seq in range(60)]
    first = write(tmp_path, ticks[:1]).bytes
    whole = write(tmp_path, ticks).bytes - first
    assert (whole - first) * 10 < sum(len(msgspec.msgpack.encode(tick)) for tick in ticks[1:])
