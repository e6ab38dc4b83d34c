"""The compiled reading of kept files does what that in Python does."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel import build_kept
from nodeagent.kernel.parse import number, stall
from nodeagent.model.errors import Failed
from tests.unit.kept_ways import NAME, compiled, files_by

TEXTS = st.one_of(
    st.just(
        b"some avg10=0.00 avg60=0.00 avg300=0.00 total=17\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"
    ),
    st.integers(0, 2**64).map(lambda n: b"%d\n" % n),
    st.binary(max_size=600),
    st.integers(0, 40_000).map(lambda n: b"7" * n),
)
STEPS = st.lists(st.one_of(TEXTS, st.sampled_from(["same", "gone", "anew", "close", "retry"])), max_size=30)


def nothing(_raw: bytes) -> None:
    """What a garbled file parses to."""


class Way:
    """One file, read in one of the ways."""

    def __init__(self, files: Any, path: Path, parse: Any) -> None:
        self.misses = files.Misses()
        self.descriptors = files.Descriptors(10)
        self.file = files.KeptFile(str(path), parse, files.Shelf(self.descriptors, self.misses))

    def state(self, value: object) -> tuple[object, ...]:
        """All that somebody could see of it."""
        file = self.file
        counts = (self.misses.garbled, self.misses.gone, self.misses.refused, self.descriptors.kept)
        return (value, file.kept, file.absent, file.changes, file._raw, file._last, file._size, *counts)


@given(steps=STEPS, parse=st.sampled_from([number, stall, bytes, nothing]))
def test_whatever_becomes_of_a_file_both_ways_tell_the_same(steps: list[Any], parse: Any) -> None:
    ways = [files_by(None), files_by(compiled())]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        path.write_bytes(b"1\n")
        c_and_python = [Way(files, path, parse) for files in ways]
        for step in steps:
            done(step, path, c_and_python)
            one, other = (way.state(way.file.value()) for way in c_and_python)
            assert one == other
        for way in c_and_python:
            way.file.close()


def done(step: bytes | str, path: Path, ways: list[Way]) -> None:
    """What happens to the file, or to those that read it."""
    if isinstance(step, bytes):
        path.write_bytes(step)
    elif step == "gone":
        path.unlink(missing_ok=True)
    elif step == "anew":
        path.unlink(missing_ok=True)
        path.write_bytes(b"2\n")
    for way in ways:
        if step == "close":
            way.file.close()
        elif step == "retry":
            way.file.absent = False


def test_a_value_that_has_not_changed_is_the_same_object(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456789\n")
    way = Way(files_by(compiled()), tmp_path / "file", number)
    first = way.file.value()
    assert first == 123456789
    assert way.file.value() is first
    assert way.file.changes == 1


def test_an_error_of_a_parser_comes_through(tmp_path: Path) -> None:
    def broken(_raw: bytes) -> int:
        raise ZeroDivisionError

    (tmp_path / "file").write_bytes(b"1\n")
    with pytest.raises(ZeroDivisionError):
        Way(files_by(compiled()), tmp_path / "file", broken).file.value()


def test_a_size_that_cannot_be_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1\n")
    way = Way(files_by(compiled()), tmp_path / "file", number)
    assert way.file.value() == 1
    way.file._size = -1
    with pytest.raises(ValueError, match="negative"):
        way.file.value()


def test_neither_files_nor_their_values_are_leaked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1\n")
    way = Way(files_by(compiled()), tmp_path / "file", bytes)
    way.file.value()
    raw = way.file._raw
    before = sys.getrefcount(raw)
    for _ in range(1000):
        way.file.value()
    assert sys.getrefcount(raw) == before
    kind = type(way.file)
    references = sys.getrefcount(kind)
    way.file.close()
    del way
    gc.collect()
    assert sys.getrefcount(kind) < references


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.raises(Failed, match=r"_kept\.c cannot be compiled") as failed:
        build_kept.build(tmp_path)
    assert "gcc" in failed.value.hint
    assert not list(tmp_path.iterdir())


def test_the_whole_reader_tells_the_same_of_a_tree() -> None:
    """The machine's own files that stand still, read by the reader of each way, in a process of its own."""
    program = (
        "import sys, importlib.util\n"
        f"name, path = {NAME!r}, sys.argv[1]\n"
        "sys.modules[name] = None\n"
        "if path:\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    sys.modules[name] = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(sys.modules[name])\n"
        "from nodeagent.kernel import files\n"
        "from nodeagent.kernel.topology import TopologyFiles\n"
        "shelf = files.Shelf(files.Descriptors(100), files.Misses())\n"
        "read = TopologyFiles('/proc', '/sys/devices/system', shelf)\n"
        "print(files.KeptFile.__mro__[1].__module__, read.read(0.0) and read.read(100.0))\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
        ).stdout
        for path in ("", compiled())
    ]
    (python, one), (c, other) = (text.split(" ", 1) for text in told)
    assert (python, c) == ("nodeagent.kernel.kept", NAME)
    assert one == other
