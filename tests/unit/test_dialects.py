"""Text <-> value in both dialects of the cpu controller, by strings and on captured trees."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from cgroupspy.controllers import Controller
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel.cgroup import MAX_DIGITS, Cgroup, Count, Flag
from nodeagent.kernel.cgroup_v1 import CpuV1, Quota
from nodeagent.kernel.cgroup_v2 import CpuV2, QuotaPair
from nodeagent.kernel.cpu import MAX_QUOTA_US, MIN_QUOTA_US, CpuCgroup
from nodeagent.model.errors import Garbled, Gone, Refused, Unsupported
from nodeagent.model.plan import Kind

QUOTA_US = st.just(math.inf) | st.integers(MIN_QUOTA_US, MAX_QUOTA_US).map(float)
PERIOD_US = st.integers(1000, 1_000_000)
NOT_NUMBERS = [
    b"",
    b"\n",
    b"-2",
    b"+5",
    b"1_0",
    b"0x10",
    b"1.5",
    b"1 2 3",
    b"ten",
    b"\xb2",
    b"\xd9\xa3",
    b"nan",
]

V1 = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "cpu.shares": "1024", "cpu.idle": "0"}
V2 = {"cpu.max": "max 100000", "cpu.weight": "100", "cpu.idle": "0"}
DIALECTS = pytest.mark.parametrize(("dialect", "files"), [(CpuV1, V1), (CpuV2, V2)])


def captured(tmp_path: Path, files: dict[str, str], **changed: str) -> Path:
    """A cgroup directory with these texts; `changed` by file name with "_" for "."."""
    directory = tmp_path / "pod"
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(changed.get(name.replace(".", "_"), text) + "\n")
    return directory


@given(QUOTA_US)
def test_a_v1_quota_survives_text_and_back(quota_us: float) -> None:
    assert Quota("f").parse(Quota("f").render(quota_us).encode() + b"\n") == quota_us


@given(QUOTA_US, PERIOD_US)
def test_a_v2_quota_survives_text_and_back(quota_us: float, period_us: int) -> None:
    pair = QuotaPair("f")
    assert pair.parse(pair.render((quota_us, period_us)).encode() + b"\n") == (quota_us, period_us)


@given(st.integers(0, 10**MAX_DIGITS - 1))
def test_a_count_survives_text_and_back(number: int) -> None:
    assert Count("f").parse(Count("f").render(number).encode() + b"\n") == number


def test_quota_texts_are_those_of_the_kernel() -> None:
    assert Quota("f").parse(b"-1\n") == math.inf
    assert Quota("f").render(math.inf) == "-1"
    assert Quota("f").render(50_000.0) == "50000"
    assert QuotaPair("f").parse(b"max 100000\n") == (math.inf, 100_000)
    assert QuotaPair("f").render((math.inf, 100_000)) == "max 100000"
    assert QuotaPair("f").render((25_000.0, 50_000)) == "25000 50000"


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_what_the_kernel_never_writes_is_not_a_number(text: bytes) -> None:
    for interface in (Count("f"), Flag("f"), Quota("f"), QuotaPair("f")):
        with pytest.raises(ValueError, match=r"not |too many"):
            interface.parse(text)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    for interface in (Count("f"), Flag("f"), Quota("f"), QuotaPair("f")):
        with contextlib.suppress(ValueError):
            interface.parse(data)


def test_cgroupspy_itself_reads_through_both_dialects(tmp_path: Path) -> None:
    v1: Controller = CpuV1(str(captured(tmp_path / "1", V1)))
    v2: Controller = CpuV2(str(captured(tmp_path / "2", V2)))
    assert v1.get_content("cfs_quota_us") == math.inf
    assert v1.get_content("weight") == 1024
    assert v2.get_content("max") == (math.inf, 100_000)
    assert v2.get_content("idle") is False


@DIALECTS
@given(steps=st.integers(MIN_QUOTA_US, MAX_QUOTA_US), period_us=PERIOD_US)
def test_a_quota_is_found_exactly_as_written_and_keeps_its_period(
    tmp_path_factory: pytest.TempPathFactory,
    dialect: type[CpuCgroup],
    files: dict[str, str],
    steps: int,
    period_us: int,
) -> None:
    period = {"cpu_cfs_period_us": str(period_us), "cpu_max": f"max {period_us}"}
    directory = captured(tmp_path_factory.mktemp("quota"), files, **period)
    cgroup = dialect(str(directory))
    cgroup.write(Kind.CPU_QUOTA, steps / period_us)
    found = cgroup.read(Kind.CPU_QUOTA)
    cgroup.close()
    assert (found.actual, found.scale) == (steps / period_us, period_us)
    texts = [(directory / name).read_text().strip() for name in files]
    assert texts[:2] == [str(steps), str(period_us)] or texts[0] == f"{steps} {period_us}"


@DIALECTS
@given(data=st.data())
def test_a_weight_is_found_exactly_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    dialect: type[CpuCgroup],
    files: dict[str, str],
    data: st.DataObject,
) -> None:
    steps = data.draw(st.integers(dialect.min_weight, dialect.max_weight))
    cgroup = dialect(str(captured(tmp_path_factory.mktemp("weight"), files)))
    cgroup.write(Kind.CPU_WEIGHT, steps / dialect.default_weight)
    found = cgroup.read(Kind.CPU_WEIGHT)
    cgroup.close()
    assert found.actual == steps / found.scale
    assert found.low <= found.actual <= found.high


@DIALECTS
def test_a_fresh_cgroup_has_no_limit_and_the_default_weight(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]
) -> None:
    cgroup = dialect(str(captured(tmp_path, files)))
    assert cgroup.read(Kind.CPU_QUOTA).actual == math.inf
    assert cgroup.read(Kind.CPU_QUOTA).low == 0.01
    assert cgroup.read(Kind.CPU_WEIGHT)[:2] == (1.0, dialect.default_weight)
    assert cgroup.read(Kind.CPU_WEIGHT).has_idle


@DIALECTS
@pytest.mark.parametrize("cores", [0.0, 0.0099, -1.0, 2.0**60, math.nan])
def test_a_quota_that_the_kernel_would_refuse_is_never_attempted(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str], cores: float
) -> None:
    directory = captured(tmp_path, files)
    with pytest.raises(Refused, match="not written"):
        dialect(str(directory)).write(Kind.CPU_QUOTA, cores)
    assert {name: (directory / name).read_text().strip() for name in files} == files


@DIALECTS
@pytest.mark.parametrize("weight", [0.0009, -1.0, 257.0, math.inf, math.nan])
def test_a_weight_that_the_kernel_would_clamp_is_never_attempted(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str], weight: float
) -> None:
    directory = captured(tmp_path, files)
    with pytest.raises(Refused, match="not written"):
        dialect(str(directory)).write(Kind.CPU_WEIGHT, weight)
    assert {name: (directory / name).read_text().strip() for name in files} == files


@DIALECTS
def test_idle_is_weight_zero_and_hides_the_weight(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]
) -> None:
    directory = captured(tmp_path, files)
    cgroup = dialect(str(directory))
    cgroup.write(Kind.CPU_WEIGHT, 0.0)
    assert (directory / "cpu.idle").read_text() == "1"
    assert cgroup.read(Kind.CPU_WEIGHT).actual == 0.0
    cgroup.write(Kind.CPU_WEIGHT, 0.5)
    assert (directory / "cpu.idle").read_text() == "0"
    assert cgroup.read(Kind.CPU_WEIGHT).actual == 0.5


@DIALECTS
def test_without_cpu_idle_there_is_a_weight_but_no_idle(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]
) -> None:
    directory = captured(tmp_path, {name: text for name, text in files.items() if name != "cpu.idle"})
    cgroup = dialect(str(directory))
    assert not cgroup.read(Kind.CPU_WEIGHT).has_idle
    with pytest.raises(Unsupported, match=r"cpu\.idle"):
        cgroup.write(Kind.CPU_WEIGHT, 0.0)
    assert not (directory / "cpu.idle").exists()
    cgroup.write(Kind.CPU_WEIGHT, 2.0)
    assert cgroup.read(Kind.CPU_WEIGHT).actual == 2.0


@DIALECTS
def test_a_cgroup_without_the_files_has_no_knobs(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]
) -> None:
    cgroup = dialect(str(captured(tmp_path, {})))
    for kind in (Kind.CPU_QUOTA, Kind.CPU_WEIGHT):
        with pytest.raises(Unsupported, match="does not exist"):
            cgroup.read(kind)
        with pytest.raises(Unsupported, match="does not exist"):
            cgroup.write(kind, 1.0)
    assert list((tmp_path / "pod").iterdir()) == []


@DIALECTS
@pytest.mark.parametrize("text", ["", "nonsense", "-5", "\0\0\0", "9" * 5000, "1 2 3"])
def test_garbled_files_are_garbled(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str], text: str
) -> None:
    cgroup = dialect(str(captured(tmp_path, dict.fromkeys(files, text))))
    for kind in (Kind.CPU_QUOTA, Kind.CPU_WEIGHT):
        with pytest.raises(Garbled, match=str(tmp_path)):
            cgroup.read(kind)


@DIALECTS
def test_a_period_of_zero_is_garbled(tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]) -> None:
    cgroup = dialect(str(captured(tmp_path, files, cpu_cfs_period_us="0", cpu_max="5000 0")))
    with pytest.raises(Garbled, match="period"):
        cgroup.read(Kind.CPU_QUOTA)


@DIALECTS
def test_a_cgroup_made_again_under_the_same_name_is_not_written(
    tmp_path: Path, dialect: type[CpuCgroup], files: dict[str, str]
) -> None:
    directory = captured(tmp_path, files)
    cgroup = dialect(str(directory))
    directory.rename(tmp_path / "old")
    for name in files:
        (tmp_path / "old" / name).unlink()
    captured(tmp_path, files)
    assert not cgroup.alive
    with pytest.raises(Gone):
        cgroup.write(Kind.CPU_QUOTA, 0.5)
    assert {name: (directory / name).read_text().strip() for name in files} == files


def test_links_are_not_followed_and_a_missing_directory_is_gone(tmp_path: Path) -> None:
    directory = captured(tmp_path, V2)
    (directory / "cpu.max").unlink()
    (tmp_path / "secret").write_text("max 100000\n")
    (directory / "cpu.max").symlink_to(tmp_path / "secret")
    with pytest.raises(Refused):
        CpuV2(str(directory)).read(Kind.CPU_QUOTA)
    with pytest.raises(Gone):
        Cgroup(str(tmp_path / "nowhere"))


@DIALECTS
def test_a_quota_never_goes_below_the_burst_which_the_kernel_would_refuse(
    dialect: type[CpuCgroup], files: dict[str, str], tmp_path: Path
) -> None:
    for name, text in {**files, "cpu.cfs_burst_us": "50000", "cpu.max.burst": "50000"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    with contextlib.closing(dialect(str(tmp_path))) as cgroup:
        found = cgroup.read(Kind.CPU_QUOTA)
        assert (found.low, found.burst, found.scale) == (0.01, 0.5, 100_000)
        with pytest.raises(Refused, match=r"0\.1 is outside of 0\.5"):
            cgroup.write(Kind.CPU_QUOTA, 0.1)
        cgroup.write(Kind.CPU_QUOTA, 0.5)
        assert cgroup.read(Kind.CPU_QUOTA).actual == 0.5


@DIALECTS
def test_a_burst_counts_in_cores_of_the_quotas_period_and_never_exceeds_the_quota(
    dialect: type[CpuCgroup], files: dict[str, str], tmp_path: Path
) -> None:
    own = {"cpu_cfs_quota_us": "10000", "cpu_cfs_period_us": "40000", "cpu_max": "10000 40000"}
    directory = captured(tmp_path, {**files, "cpu.cfs_burst_us": "0", "cpu.max.burst": "0"}, **own)
    with contextlib.closing(dialect(str(directory))) as cgroup:
        found = cgroup.read(Kind.CPU_BURST)
        assert (found.actual, found.scale, found.low, found.high) == (0.0, 40_000, 0.0, 0.25)
        with pytest.raises(Refused, match="not written"):
            cgroup.write(Kind.CPU_BURST, 0.26)
        cgroup.write(Kind.CPU_BURST, 0.25)
        assert cgroup.read(Kind.CPU_BURST).actual == 0.25
    name = "cpu.cfs_burst_us" if dialect is CpuV1 else "cpu.max.burst"
    assert (directory / name).read_text() == "10000"


@DIALECTS
def test_without_a_quota_any_burst_is_taken(
    dialect: type[CpuCgroup], files: dict[str, str], tmp_path: Path
) -> None:
    directory = captured(tmp_path, {**files, "cpu.cfs_burst_us": "70000", "cpu.max.burst": "70000"})
    with contextlib.closing(dialect(str(directory))) as cgroup:
        assert cgroup.read(Kind.CPU_BURST).actual == 0.7
        cgroup.write(Kind.CPU_BURST, 3.0)
        assert cgroup.read(Kind.CPU_BURST).actual == 3.0


@DIALECTS
def test_a_kernel_without_bursts_has_no_such_knob(
    dialect: type[CpuCgroup], files: dict[str, str], tmp_path: Path
) -> None:
    with contextlib.closing(dialect(str(captured(tmp_path, files)))) as cgroup:
        with pytest.raises(Unsupported):
            cgroup.read(Kind.CPU_BURST)
        assert cgroup.read(Kind.CPU_QUOTA).burst == 0.0
