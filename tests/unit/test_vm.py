"""The emulated machines of `make vm-test`: their arguments and what they say. None is started."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.vm.__main__ import machine, parser
from tests.vm.boot import home_of
from tests.vm.guest import Guest
from tests.vm.host import VmError, counter_khz, need
from tests.vm.kernel import load_order
from tests.vm.machine import Files, Machine, Mount, qemu_argv
from tests.vm.project import ROOT, wanted
from tests.vm.suite import CORE, FULL, KINDS, PLACING, LastLine, pytest_argv, run

FILES = Files(Path("/cache/root.ext4"), Path("/cache/kernel"), Path("/tmp/vms/a"))


def argv(made: Machine) -> list[str]:
    return qemu_argv(made, FILES, "0" * 32)


def values(words: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(words) if word == option]


def test_each_node_is_a_socket_with_its_cpus_and_memory() -> None:
    words = argv(Machine(nodes=2, cores=2, threads=2, memory_mib=512))
    assert values(words, "-smp") == ["cpus=8,sockets=2,cores=2,threads=2"]
    assert values(words, "-m") == ["1024M"]
    assert values(words, "-numa") == [
        "node,nodeid=0,cpus=0-3,memdev=m0",
        "node,nodeid=1,cpus=4-7,memdev=m1",
        "dist,src=0,dst=1,val=21",
    ]


def test_a_memoryless_node_has_cpus_alone_and_a_cpuless_one_memory_alone() -> None:
    words = argv(Machine(nodes=1, cores=2, memoryless=1, cpuless=1, memory_mib=512))
    nodes = [text for text in values(words, "-numa") if text.startswith("node")]
    assert nodes == ["node,nodeid=0,cpus=0-1,memdev=m0", "node,nodeid=1,cpus=2-3", "node,nodeid=2,memdev=m2"]
    assert values(words, "-m") == ["1024M"]
    assert values(words, "-smp") == ["cpus=4,sockets=2,cores=2,threads=1"]


@pytest.mark.parametrize(("nics", "buses"), [(0, []), (1, ["pxb0"]), (3, ["pxb0", "pxb1", "pxb0"])])
def test_nics_take_turns_on_the_numa_nodes(nics: int, buses: list[str]) -> None:
    devices = values(argv(Machine(nics=nics)), "-device")
    ports = [text for text in devices if text.startswith("pcie-root-port")]
    assert [text.split("bus=")[1].split(",")[0] for text in ports] == buses
    assert sum(text.startswith("virtio-net-pci,id=peer") for text in devices) == nics


def test_the_cgroup_mode_is_a_matter_of_the_kernel_command_line() -> None:
    lines = {mode: values(argv(Machine(cgroup=mode)), "-append")[0] for mode in ("v2", "v1", "hybrid")}
    assert "unified" not in lines["v2"]
    assert "legacy_systemd_cgroup_controller=1" in lines["v1"]
    assert "legacy_systemd_cgroup_controller=0" in lines["hybrid"]


def test_the_root_image_is_never_written_and_copies_come_after_the_scratch_disk() -> None:
    made = Machine(
        scratch_mib=8, mounts=(Mount(Path("/src"), "/dst"), Mount(Path("/live"), "/host", live=True))
    )
    drives = values(argv(made), "-drive")
    assert drives[0] == "file=/cache/root.ext4,if=none,id=d0,format=raw,snapshot=on"
    assert [text.split(",")[0] for text in drives[1:]] == [
        "file=/cache/kernel/modules.ext4",
        "file=/tmp/vms/a/scratch",
        "file=/tmp/vms/a/copy0",
    ]
    assert [text.split(",")[2] for text in values(argv(made), "-fsdev")] == ["path=/live"]


def test_options_describe_the_machine() -> None:
    words = ["run", "--nodes", "4", "--cgroup", "v1", "--share", f"{ROOT}/tests:/t:ro", "--", "true"]
    given = machine(parser().parse_args(words))
    assert (given.nodes, given.cgroup) == (4, "v1")
    assert given.mounts == (Mount(ROOT / "tests", "/t", live=True, readonly=True),)
    with pytest.raises(VmError, match="not a folder"):
        machine(parser().parse_args(["run", "--copy", "/nowhere:/x", "--", "true"]))


def test_modules_are_loaded_after_what_they_need_and_once() -> None:
    dep = "k/a-b.ko: k/c.ko k/d.ko\nk/c.ko: k/d.ko\nk/d.ko:\n"
    assert load_order(dep, ("a_b", "c", "builtin")) == ["k/d.ko", "k/c.ko", "k/a-b.ko"]


def test_a_guest_gets_what_runs_and_not_what_checks_the_source() -> None:
    taken = wanted((ROOT / "requirements.lock").read_text())
    names = {line.partition("==")[0] for line in taken.splitlines() if "==" in line}
    assert {"grpcio", "msgspec", "pytest", "hypothesis", "click"} <= names
    assert not names & {"mypy", "ruff", "buf-bin", "grpcio-tools", "hatchling", "types-psutil"}
    assert taken.count("--hash=sha256:") > len(names)


def test_the_rate_of_the_counter_is_measured_the_same_twice() -> None:
    first, second = counter_khz(), counter_khz()
    assert first is None or (second is not None and abs(first - second) < first / 500)


def test_the_core_is_there_and_part_of_the_whole() -> None:
    assert all((ROOT / path).exists() for path in (*CORE, *FULL, *PLACING))
    assert all(path.startswith(FULL) for path in (*CORE, *PLACING))
    assert set(FULL) <= set(pytest_argv(FULL, "", ()))
    assert pytest_argv(CORE, "not kills", ("-x",))[-3:] == ["-k", "not kills", "-x"]


def test_a_kind_of_machine_that_there_is_not_is_refused_before_anything_is_booted() -> None:
    with pytest.raises(VmError, match="no v3; there are: v2, v1, hybrid"):
        run(Machine(), ("v2", "v3"), short=True, more=())


def test_every_kind_is_a_machine() -> None:
    shapes = {name: replace(Machine(), **kind.changes).described() for name, kind in KINDS.items()}
    assert len(set(shapes.values())) == len(KINDS)


def test_the_last_line_is_kept_without_its_colours(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = LastLine()
    lines.write(b"...\n\x1b[32m==== 3 passed in 1.0s ====\x1b[0m\n\n")
    lines.flush()
    assert lines.text == "3 passed in 1.0s"
    assert LastLine().text == "said nothing"


def test_what_is_missing_is_named_with_its_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    line = "qemu-system-x86_64, mke2fs not found. Install: apt-get install e2fsprogs qemu-system-x86"
    with pytest.raises(VmError) as error:
        need("qemu-system-x86_64", "mke2fs")
    assert str(error.value) == line


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 41])
def test_a_machine_s_name_is_no_path(name: str) -> None:
    with pytest.raises(VmError, match="cannot be called"):
        home_of(name)


def test_a_command_for_a_machine_that_does_not_run_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="no machine absent runs"):
        Guest(tmp_path / "absent").run(["true"])


def test_help_tells_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.vm", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in ("build", "run", "start", "exec", "link", "stop", "test"):
        assert f"    {name} " in done.stdout
