"""The checkpoint: whole or not at all, and never believed when it is absurd."""

from __future__ import annotations

import os
import resource
import stat
import time
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.checkpoint import MAGIC, load, save
from nodeagent.model.capacity import Lent
from nodeagent.model.decision import Checkpoint, Histogram, OnlineHistory
from nodeagent.model.errors import Failed

law = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)

NOW = time.time()
USED = Histogram((0.0, 2.5, 1.0), NOW, 3600.0, ((NOW - 5.0, 1.25), (NOW, 2.0)))
SAVED = Checkpoint(
    OnlineHistory(cpu=USED, memory=USED, zone_cpu={0: USED, 1: USED}, zone_memory={1: USED}), Lent(12.5, 99.0)
)


def sealed(payload: bytes) -> bytes:
    return MAGIC + zlib.crc32(payload).to_bytes(4, "little") + payload


def assert_cold(state: Path, said: str) -> None:
    content = (state / "checkpoint").read_bytes()
    loaded, warning = load(state, 3, 3)
    assert loaded == Checkpoint()
    assert said in warning
    assert not (state / "checkpoint").exists()
    assert (state / "checkpoint.corrupt").read_bytes() == content
    assert load(state) == (Checkpoint(), "")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, Checkpoint())
    save(tmp_path, SAVED)
    assert load(tmp_path) == (SAVED, "")
    assert load(tmp_path, 3, 3) == (SAVED, "")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    assert stat.S_IMODE((tmp_path / "checkpoint").stat().st_mode) == 0o600


def test_the_first_start_is_cold_without_a_warning(tmp_path: Path) -> None:
    assert load(tmp_path) == (Checkpoint(), "")
    assert load(tmp_path / "missing") == (Checkpoint(), "")


def test_a_cut_anywhere_is_a_cold_start(tmp_path: Path) -> None:
    save(tmp_path, SAVED)
    whole = (tmp_path / "checkpoint").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "checkpoint").write_bytes(whole[:cut])
        assert_cold(tmp_path, "starting cold")


@law
@given(where=st.integers(0, 10_000), bits=st.integers(1, 255))
def test_a_flipped_byte_is_a_cold_start(tmp_path: Path, where: int, bits: int) -> None:
    save(tmp_path, SAVED)
    garbled = bytearray((tmp_path / "checkpoint").read_bytes())
    garbled[where % len(garbled)] ^= bits
    (tmp_path / "checkpoint").write_bytes(garbled)
    assert_cold(tmp_path, "starting cold")


@law
@given(payload=st.binary(max_size=200))
def test_garbage_with_a_right_checksum_is_a_cold_start(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(sealed(payload))
    loaded, _ = load(tmp_path)
    assert loaded == Checkpoint()


@pytest.mark.parametrize(
    ("absurd", "said"),
    [
        (Histogram((1.0, -1.0, 0.0)), "negative or not finite"),
        (Histogram((1.0, float("nan"), 0.0)), "negative or not finite"),
        (Histogram((1.0, float("inf"), 0.0)), "negative or not finite"),
        (Histogram((1.0, 2.0)), "2 buckets instead of 3"),
        (Histogram((1.0, 2.0, 3.0), NOW + 7 * 86_400.0), "from the future"),
        (Histogram((1.0, 2.0, 3.0), float("nan")), "from the future"),
        (Histogram((1.0, 2.0, 3.0), NOW, -1.0), "negative or not finite"),
        (Histogram((1.0, 2.0, 3.0), NOW, 1.0, ((NOW, float("inf")),)), "window"),
        (Histogram((1.0, 2.0, 3.0), NOW, 1.0, ((NOW * 2, 1.0),)), "from the future"),
    ],
)
def test_absurd_histograms_are_a_cold_start(tmp_path: Path, absurd: Histogram, said: str) -> None:
    for online in (
        OnlineHistory(cpu=absurd),
        OnlineHistory(memory=absurd),
        OnlineHistory(zone_cpu={0: USED, 7: absurd}),
        OnlineHistory(zone_memory={0: absurd}),
    ):
        save(tmp_path, Checkpoint(online))
        assert_cold(tmp_path, said)


@pytest.mark.parametrize("absurd", [-1.0, float("nan"), float("inf")])
def test_absurd_lending_is_a_cold_start(tmp_path: Path, absurd: float) -> None:
    for lent in (Lent(absurd, 0.0), Lent(0.0, absurd)):
        save(tmp_path, Checkpoint(lent=lent))
        assert_cold(tmp_path, "lent")


def test_deep_nesting_and_huge_files_are_a_cold_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(sealed(b"\x81\xa6online" + b"\x91" * 100_000))
    assert_cold(tmp_path, "starting cold")
    with open(tmp_path / "checkpoint", "wb") as file:
        file.truncate(100 << 20)
    loaded, warning = load(tmp_path)
    assert loaded == Checkpoint()
    assert "larger than" in warning


def test_another_format_version_is_a_cold_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(MAGIC[:-1] + b"\x02" + b"later")
    assert_cold(tmp_path, "format version 02")


def test_a_symbolic_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    save(tmp_path, SAVED)
    (tmp_path / "checkpoint").rename(tmp_path / "other")
    (tmp_path / "checkpoint").symlink_to(tmp_path / "other")
    assert load(tmp_path)[0] == Checkpoint()
    (tmp_path / "checkpoint").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "checkpoint")
    loaded, warning = load(tmp_path)
    assert loaded == Checkpoint()
    assert "not a regular file" in warning


def test_saving_over_a_symbolic_link_replaces_the_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    for name in ("checkpoint", "checkpoint.tmp"):
        (tmp_path / name).symlink_to(victim)
    save(tmp_path, SAVED)
    assert victim.read_text() == "theirs"
    assert load(tmp_path) == (SAVED, "")


def test_a_disk_that_refuses_is_one_clear_line_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    save(tmp_path, SAVED)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(Failed, match="File too large") as caught:
            save(tmp_path, Checkpoint())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert load(tmp_path) == (SAVED, "")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    with pytest.raises(Failed, match="No such file"):
        save(tmp_path / "missing", SAVED)


def test_the_file_of_a_node_with_eight_numa_nodes_is_small(tmp_path: Path) -> None:
    full = Histogram(tuple(float(n) for n in range(267)), NOW, 1e6)
    zones = dict.fromkeys(range(8), full)
    saved = Checkpoint(OnlineHistory(full, full, zones, zones), Lent(1.0, 1.0))
    save(tmp_path, saved)
    assert (tmp_path / "checkpoint").stat().st_size < 64 << 10
    assert load(tmp_path, 267, 267) == (saved, "")
    assert msgspec.msgpack.encode(load(tmp_path)[0]) == msgspec.msgpack.encode(saved)
