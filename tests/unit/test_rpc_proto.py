"""The protocol is clean by buf's rules, breaks no client, and the committed code is what it generates."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed (package buf-bin)")
needs_protoc = pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None, reason="protoc is not installed (package grpcio-tools)"
)
IMAGE = ROOT / "proto" / "nodeagent-v1.binpb"  # `make proto-image` makes it


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def breaking(protocol: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [BUF or "", "breaking", protocol, "--against", IMAGE]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def edited(directory: Path, name: str, old: str, new: str) -> Path:
    """A copy of the protocol in which one text is another."""
    copy = directory / "proto"
    shutil.copytree(ROOT / "proto", copy)
    file = copy / "nodeagent" / "v1" / f"{name}.proto"
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} is not once in {name}.proto"
    file.write_text(text.replace(old, new))
    return copy


@needs_buf
@pytest.mark.parametrize("check", [["lint"], ["format", "--diff", "--exit-code"]], ids=["lint", "format"])
def test_buf_finds_nothing(check: list[str]) -> None:
    run(BUF or "", *check, "proto")


@needs_buf
def test_no_client_of_the_committed_image_is_broken() -> None:
    done = breaking(ROOT / "proto")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("nodeagent", "  double confidence_ratio = 8;", "", 'field "8" with name "confidence_ratio"'),
        ("nodeagent", "double confidence_ratio = 8;", "float confidence_ratio = 8;", "changed type"),
        ("nodeagent", "double confidence_ratio = 8;", "double trust_ratio = 8;", "changed name"),
        ("nodeagent", "double confidence_ratio = 8;", "double confidence_ratio = 18;", '"8"'),
        ("nodeagent", "  QOS_BATCH = 3;", "  QOS_OFFLINE = 3;", "QOS_BATCH"),
        ("nodeagent", "returns (stream WatchCapacityResponse)", "returns (WatchCapacityResponse)", "stream"),
        (
            "nodeagent",
            "  rpc GetCapacity(GetCapacityRequest) returns (GetCapacityResponse);\n",
            "",
            '"GetCapacity"',
        ),
        ("explain", "message Input {", "message Given {", "Input"),
    ],
)
def test_what_would_break_a_client_is_found(tmp_path: Path, name: str, old: str, new: str, told: str) -> None:
    copy = edited(tmp_path, name, old, new)
    if new.startswith("message"):
        file = copy / "nodeagent" / "v1" / f"{name}.proto"
        file.write_text(file.read_text().replace("repeated Input", "repeated Given"))
    done = breaking(copy)
    assert done.returncode == 100, done.stdout + done.stderr  # 1 would be a file that cannot be read
    assert told in done.stdout


@needs_buf
def test_what_is_only_new_breaks_nobody(tmp_path: Path) -> None:
    added = "double confidence_ratio = 8;\n  string more = 99;"
    done = breaking(edited(tmp_path, "nodeagent", "double confidence_ratio = 8;", added))
    assert done.returncode == 0, done.stdout


@needs_protoc
def test_the_committed_messages_of_the_runtime_are_what_its_subset_generates(tmp_path: Path) -> None:
    """`make proto`: messages alone, for the methods are called by name."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    run(sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *outputs, "proto/nodeagent/cri/v1/cri.proto")
    committed = ROOT / "nodeagent" / "cri" / "v1"
    made = tmp_path / "nodeagent" / "cri" / "v1"
    assert sorted(p.name for p in made.iterdir()) == sorted(p.name for p in committed.glob("*_pb2*.py*"))
    for path in made.iterdir():
        assert (committed / path.name).read_text() == path.read_text(), f"{path.name}: run make proto"


@needs_protoc
def test_the_committed_code_is_what_the_protocol_generates(tmp_path: Path) -> None:
    """`make proto` writes it anew, with the oldest grpcio-tools that is to be supported at run time:

    grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. proto/nodeagent/v1/*.proto
    """
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    run(
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-Iproto",
        *outputs,
        *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("proto/nodeagent/v1/*.proto")),
    )
    made = {path.name: path.read_text() for path in (tmp_path / "nodeagent" / "v1").iterdir()}
    committed = ROOT / "nodeagent" / "v1"
    assert sorted(made) == sorted(path.name for path in committed.glob("*_pb2*.py*"))
    for name, text in made.items():
        assert (committed / name).read_text() == text, f"{name}: run make proto"
