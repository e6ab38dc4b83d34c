"""Claims in tmp_path: what is written is read, what is not a claim is ignored and told."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model.errors import Refused
from nodeagent.model.pod import Claim, Priority, Qos
from nodeagent.pods.claims import lock_dead_claims, read_claims, remove_claim, write_claim

CLAIM = Claim(
    cgroup="nodeagent/batch/sort",
    name="sort",
    qos=Qos.BATCH,
    pid=7,
    priority=Priority.LOW,
    cpus=1.5,
    memory=1 << 30,
)


def test_a_written_claim_is_read_until_it_is_removed(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    assert read_claims(run_dir) == {}
    lock = write_claim(run_dir, CLAIM)
    assert read_claims(run_dir) == {"nodeagent/batch/sort": CLAIM}
    remove_claim(run_dir, CLAIM.cgroup)
    remove_claim(run_dir, CLAIM.cgroup)
    assert read_claims(run_dir) == {}
    os.close(lock)


def test_what_an_ls_pod_asks_of_numa_is_read_as_it_was_written(tmp_path: Path) -> None:
    claim = Claim(
        cgroup="nodeagent/ls/web", name="web", qos=Qos.LS, pid=7, cpus=4.0, numa_bind=True, near="eth1"
    )
    os.close(write_claim(str(tmp_path), claim))
    assert read_claims(str(tmp_path)) == {"nodeagent/ls/web": claim}


@pytest.mark.parametrize("near", ["a b", "a/b", "\x7f", "ä", "x" * 65, "\n"])
def test_a_claim_near_what_no_device_is_called_is_ignored(tmp_path: Path, near: str) -> None:
    claim = Claim(cgroup="nodeagent/ls/web", name="web", qos=Qos.LS, pid=7, numa_bind=True, near=near)
    os.close(write_claim(str(tmp_path), claim))
    assert read_claims(str(tmp_path)) == {}


def test_only_the_owner_may_read_claims(tmp_path: Path) -> None:
    os.close(write_claim(str(tmp_path), CLAIM))
    assert stat.S_IMODE((tmp_path / "pods").stat().st_mode) == 0o700
    assert [p.name for p in (tmp_path / "pods").iterdir()] == ["batch.sort.json"]
    assert stat.S_IMODE((tmp_path / "pods/batch.sort.json").stat().st_mode) == 0o600


def test_a_claim_never_replaces_another(tmp_path: Path) -> None:
    lock = write_claim(str(tmp_path), CLAIM)
    with pytest.raises(FileExistsError):
        write_claim(str(tmp_path), CLAIM)
    assert [p.name for p in (tmp_path / "pods").iterdir()] == ["batch.sort.json"]
    os.close(lock)


def test_a_claim_lives_as_long_as_its_descriptor(tmp_path: Path) -> None:
    lock = write_claim(str(tmp_path), CLAIM)
    assert list(lock_dead_claims(str(tmp_path))) == []
    os.close(lock)
    ((cgroup, dead),) = lock_dead_claims(str(tmp_path))
    assert cgroup == CLAIM.cgroup
    assert list(lock_dead_claims(str(tmp_path))) == []  # one cleans up, not two
    os.close(dead)


def test_where_nothing_can_be_written_it_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write the pod's claim") as caught:
        write_claim(str(tmp_path / "file"), CLAIM)
    assert caught.value.hint


GOOD = b'{"cgroup":"nodeagent/batch/x","name":"x","qos":"batch","pid":1}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[" * 4000,
        GOOD + b" " * 4096,
        GOOD.replace(b"batch/x", b"batch/y"),
        GOOD.replace(b'"batch"', b'"ls"'),
        GOOD.replace(b'"pid":1', b'"pid":"1"'),
        GOOD.replace(b'"pid":1', b'"pid":1,"cpus":-1'),
        GOOD.replace(b'"pid":1', b'"pid":1,"cpus":1e300'),
        GOOD.replace(b'"pid":1', b'"pid":1,"memory":0'),
        GOOD.replace(b'"pid":1', b'"pid":1,"numa_bind":true'),
        GOOD.replace(b'"pid":1', b'"pid":1,"exclusive":true'),
        GOOD.replace(b'"pid":1', b'"pid":1,"near":"eth1"'),
        GOOD.replace(b'"pid":1', b'"pid":1,"hands_off":true'),
    ],
)
def test_what_is_not_a_claim_is_ignored_and_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "pods").mkdir()
    path = tmp_path / "pods/batch.x.json"
    path.write_bytes(text)
    told: list[str] = []
    assert read_claims(str(tmp_path), lambda where, _why: told.append(where)) == {}
    assert told == [str(path)]
    path.write_bytes(GOOD)
    assert list(read_claims(str(tmp_path))) == ["nodeagent/batch/x"]


def test_what_others_could_have_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    (tmp_path / "elsewhere").write_bytes(GOOD)
    (tmp_path / "pods/batch.x.json").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pods/batch.y.json").write_bytes(GOOD.replace(b"x", b"y"))
    (tmp_path / "pods/batch.y.json").chmod(0o666)
    os.mkfifo(tmp_path / "pods/batch.z.json")
    (tmp_path / "pods/batch.dir.json").mkdir()
    (tmp_path / "pods/notes.txt").write_bytes(GOOD)
    told: list[str] = []
    assert read_claims(str(tmp_path), lambda where, _why: told.append(Path(where).name)) == {}
    assert told == ["batch.dir.json", "batch.x.json", "batch.y.json", "batch.z.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_foreign_users_claim_is_ignored(tmp_path: Path) -> None:
    os.close(write_claim(str(tmp_path), CLAIM))
    os.chown(tmp_path / "pods/batch.sort.json", 65534, 65534)
    assert read_claims(str(tmp_path)) == {}


@given(st.binary(max_size=200))
def test_no_content_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    run_dir = tmp_path_factory.getbasetemp() / "garbage"
    (run_dir / "pods").mkdir(parents=True, exist_ok=True)
    (run_dir / "pods/ls.x.json").write_bytes(text)
    read_claims(str(run_dir))
