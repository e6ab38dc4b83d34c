"""Traces: what a file says is taken, what it does not say is not known, garbage is refused with its line."""

from __future__ import annotations

import gzip
import io
import math
import subprocess
import sys
import tarfile
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.model.errors import Failed
from nodeagent.simulate import alibaba, table
from nodeagent.simulate.source import MAX_LINE_BYTES
from nodeagent.simulate.trace import Course, Series, Trace, count, steps, traced

TWO_PODS = "# SYNTHETIC: by hand\n\nseconds,web,search\n0,1.5,2\n10,3,\n20,0.5,4 \n"
# cluster-trace-v2018: the first four columns of the usage are those published in clusterdata issue 62
META = """\
c_31920,m_644,0,app_5052,started,400,400,1.56
c_5644,m_644,0,app_17,started,800,800,3.13
c_5644,m_644,287942,app_17,started,400,800,3.13
c_1,m_2556,0,app_5052,started,400,400,1.56
"""
USAGE = """\
c_31920,m_644,90080,13,40,1.2,,1,0,0,3
c_1,m_2556,90080,50,40,1.2,,1,0,0,3
c_5644,m_644,90090,101,40,1.2,,1,0,0,3
c_5644,m_644,90080,8,40,1.2,,1,0,0,-1
c_31920,m_644,90090,26,40,1.2,,1,0,0,3
c_31920,m_644,90090,25,40,1.2,,1,0,0,3
"""
MACHINES = """\
m_1932,386640,41,92,,,43.04,33.08,5
m_1933,386640,7,90,,,40.11,30.2,5
m_1932,386660,43,92,,,43.05,33.09,5
m_1932,386650,-1,92,,,43.05,33.09,5
m_1932,386670,,92,,,43.05,33.09,5
"""


def written(tmp_path: Path, content: str | bytes, name: str = "trace.csv") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def samples(told: Trace) -> dict[str, list[tuple[float, float]]]:
    return {pod.name: list(zip(pod.times, pod.cores, strict=True)) for pod in told.pods}


def test_a_table_has_a_column_for_each_pod_notes_above_it_and_empty_cells_where_nothing_is_known(
    tmp_path: Path,
) -> None:
    told = table.read(written(tmp_path, TWO_PODS))
    assert told.notes == ("SYNTHETIC: by hand",)
    assert [pod.name for pod in told.pods] == ["web", "search"]
    assert list(told.pods[0].cores) == [1.5, 3.0, 0.5]
    assert (told.begin_s, told.end_s, told.interval_s, told.hold_s) == (0.0, 30.0, 10.0, 30.0)
    assert [step.cores for step in steps(told, 10.0)] == [(1.5, 2.0), (3.0, None), (0.5, 4.0)]


def test_without_a_header_the_pods_are_numbered_and_one_column_is_the_sum(tmp_path: Path) -> None:
    assert list(samples(table.read(written(tmp_path, "0,1\n5,2\n")))) == ["online"]
    assert list(samples(table.read(written(tmp_path, '"0","1","3"\r\n5,2,4\r\n')))) == ["pod1", "pod2"]


def test_a_longer_step_is_the_mean_of_what_holds_in_it_and_a_shorter_one_repeats_it(tmp_path: Path) -> None:
    told = table.read(written(tmp_path, "0,1\n10,4\n20,7\n"))
    assert [step.cores for step in steps(told, 15.0)] == [(2.0,), (6.0,)]
    assert [step.cores for step in steps(told, 5.0)] == [(1.0,), (1.0,), (4.0,), (4.0,), (7.0,), (7.0,)]


def test_a_sample_does_not_hold_for_ever(tmp_path: Path) -> None:
    told = table.read(written(tmp_path, "0,1\n10,2\n20,3\n100,4\n"))
    assert told.hold_s == 30.0
    found = [step.cores[0] for step in steps(told, 10.0)]
    assert found == [1.0, 2.0, 3.0, 3.0, 3.0, None, None, None, None, None, 4.0]
    shorter = table.read(written(tmp_path, "0,1\n10,2\n20,3\n"), hold_s=4.0)
    assert [step.cores[0] for step in steps(shorter, 4.0)] == [1.0, None, None, None, None, 3.0, None]


def test_a_pod_is_not_there_before_its_first_sample_and_after_its_last_has_held() -> None:
    early = Series("early", array("d", [0, 10, 20]), array("d", [1, 1, 1]))
    late = Series("late", array("d", [20, 30, 40, 50]), array("d", [2, 2, 2, 2]))
    told = traced("here", [early, late], 10.0)
    assert [step.cores for step in steps(told, 10.0)] == [
        (1.0, 0.0), (1.0, 0.0), (1.0, 2.0), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0),
    ]  # fmt: skip


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0.5, 20.0), st.floats(0.0, 64.0)), min_size=2, max_size=20),
    st.floats(0.3, 30.0),
)
def test_means_are_within_the_samples_and_add_up_to_the_integral(
    parts: list[tuple[float, float]], step_s: float
) -> None:
    times, at = array("d"), 0.0
    for span_s, _ in parts:
        times.append(at)
        at += span_s
    cores = array("d", [value for _, value in parts])
    course = Course(Series("x", times, cores), 1e9, ends=False)
    number = math.ceil(times[-1] / step_s)
    means = [course.mean(n * step_s, (n + 1) * step_s) for n in range(number)]
    known = [mean for mean in means if mean is not None]
    assert len(known) == number
    assert all(min(cores) - 1e-9 <= mean <= max(cores) + 1e-9 for mean in known)
    whole = sum(c * (b - a) for a, b, c in zip(times, times[1:], cores, strict=False))
    whole += cores[-1] * (number * step_s - times[-1])
    assert sum(known) * step_s == pytest.approx(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no samples"),
        ("# only words\n", "no samples"),
        ("seconds,web\n", "fewer than two samples"),
        ("0,1\n", "fewer than two samples"),
        ("0,1\n10,2\n10,3\n", ":3: time stands still: 10 s after 10 s"),
        ("0,1\n10,2\n5,3\n", ":3: time goes back: 5 s after 10 s"),
        ("0,1\n10,nan\n", ":2: 'nan' is not a number of cores"),
        ("0,1\nnan,2\n", ":2: 'nan' is not a number of seconds"),
        ("0,1\n10,inf\n", ":2: 'inf' is not a number of cores"),
        ("0,1\n10,-1\n", ":2: -1 is not within 0 and 65536 cores"),
        ("0,1\n10,1e9\n", ":2: 1e9 is not within 0 and 65536 cores"),
        ("0,1\n10,1_0\n", ":2: '1_0' is not a number of cores"),
        ("0,1\n10,١\n", ":2: '١' is not a number of cores"),
        ("0,1\n10\n", ":2: 1 columns where the first row has 2"),
        ("0,1\n10,2,3\n", ":2: 3 columns where the first row has 2"),
        ("0\n1\n", ":1: 1 columns; there must be 2 to"),
        ("time,web\n0,1\n", ":1: 'time' is not a number of seconds"),
        ("seconds,web,web\n0,1,1\n", ":1: each column needs a name of its own"),
        ("0,1\n1e300,2\n", ":2: 1e300 is not within"),
        ("0;1\n10;2\n", ":1: 1 columns"),
        (b"0,1\n\xff\xfe,2\n", ":2: this is not text"),
        (b"0,1\n\0\0\0\n", ":2: 1 columns"),
        ("0,1\n10," + "1" * MAX_LINE_BYTES + "\n", f":2: a line of more than {MAX_LINE_BYTES} bytes"),
        (gzip.compress(b"0,1\n" * 9999)[:40], "damaged"),
        (b"\x1f\x8bnothing that was packed", "damaged"),
    ],
)  # fmt: skip
def test_garbage_is_refused_with_its_line_and_a_hint(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(Failed) as refused:
        table.read(written(tmp_path, text))
    assert said in str(refused.value)
    assert refused.value.hint


def test_a_trace_that_nobody_can_wait_for_is_refused(tmp_path: Path) -> None:
    told = table.read(written(tmp_path, "0,1\n1e11,2\n"))
    with pytest.raises(Failed, match=r"more than 10,000,000 steps of 1 s"):
        count(told, 1.0)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(raw)
    try:
        told = table.read(str(path))
    except Failed as refused:
        assert "\n" not in str(refused).replace(str(path), "")
    else:
        assert len(told.pods[0].times) >= 2


def test_gzip_tar_and_standard_input_are_read_as_the_file_itself(tmp_path: Path) -> None:
    plain = samples(table.read(written(tmp_path, "0,1\n10,2\n")))
    assert samples(table.read(written(tmp_path, gzip.compress(b"0,1\n10,2\n"), "trace.csv.gz"))) == plain
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("machine_usage.csv")
        member.size = len(b"0,1\n10,2\n")
        tar.addfile(member, io.BytesIO(b"0,1\n10,2\n"))
    assert samples(table.read(written(tmp_path, packed.getvalue(), "trace.tar.gz"))) == plain
    program = "from nodeagent.simulate import table; print(list(table.read('-').pods[0].cores))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=gzip.compress(b"0,1\n10,2\n"), capture_output=True, check=True)
    assert done.stdout.strip() == b"[1.0, 2.0]"


def test_a_tar_without_a_file_and_a_missing_file_are_told(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(_directory("empty"))
    with pytest.raises(Failed, match="there is no file in it"):
        table.read(written(tmp_path, packed.getvalue(), "trace.tar"))
    with pytest.raises(FileNotFoundError):
        table.read(str(tmp_path / "absent.csv"))


def _directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def test_alibabas_machine_usage_is_a_share_of_the_machine_in_order_of_time(tmp_path: Path) -> None:
    told = alibaba.machine_usage(written(tmp_path, MACHINES), "m_1932", 96)
    assert list(told.pods[0].times) == [386640.0, 386650.0, 386660.0, 386670.0]
    first, invalid, third, empty = told.pods[0].cores
    assert (first, third) == pytest.approx((0.41 * 96, 0.43 * 96))
    assert math.isnan(invalid) and math.isnan(empty)
    assert [step.cores[0] is None for step in steps(told, 10.0)] == [False, True, False, True]
    assert "does not tell online work and Batch apart" in told.notes[0]


def test_alibabas_container_usage_is_a_share_of_what_each_container_requests(tmp_path: Path) -> None:
    meta = written(tmp_path, META, "container_meta.csv")
    usage = written(tmp_path, gzip.compress(USAGE.encode()), "container_usage.csv.gz")
    found = samples(alibaba.container_usage(usage, meta, "m_644"))
    assert list(found) == ["c_31920", "c_5644"]
    assert [at for at, _ in found["c_31920"]] == [90080.0, 90090.0]
    assert [cores for _, cores in found["c_31920"]] == pytest.approx([0.13 * 4, 0.26 * 4])
    assert found["c_5644"][0] == pytest.approx((90080.0, 0.08 * 8))
    assert math.isnan(found["c_5644"][1][1])


@pytest.mark.parametrize(
    ("text", "machine", "said"),
    [
        (MACHINES, "m_7", "no rows of machine 'm_7'; it has m_1932, m_1933 and others"),
        (MACHINES, "m_193", "no rows of machine 'm_193'"),
        ("", "m_1", "it is empty"),
        ("m_1,10,50\n", "m_1", ":1: 3 columns; the schema has 9"),
        (MACHINES + "m_1932,x,43,92,,,43.05,33.09,5\n", "m_1932", ":6: 'x' is not a number of seconds"),
        (MACHINES + "m_1932,9,nan,92,,,43.05,33.09,5\n", "m_1932", ":6: 'nan' is not a number of percent"),
        (MACHINES + "m_1932,9,-7,92,,,43.05,33.09,5\n", "m_1932", ":6: -7 is not within -1 and"),
        ("m_1,10,50,92,,,43.05,33.09,5\n", "m_1", "fewer than two samples"),
    ],
)
def test_what_is_not_alibabas_schema_is_refused(tmp_path: Path, text: str, machine: str, said: str) -> None:
    with pytest.raises(Failed) as refused:
        alibaba.machine_usage(written(tmp_path, text), machine, 96)
    assert said in str(refused.value)
    assert refused.value.hint


def test_a_container_without_a_request_is_refused(tmp_path: Path) -> None:
    meta = written(tmp_path, META.splitlines()[0] + "\n", "container_meta.csv")
    with pytest.raises(Failed, match=r":3: c_5644 of m_644 is not in "):
        alibaba.container_usage(written(tmp_path, USAGE), meta, "m_644")
