"""What `make install` puts into a directory, as packagers and image builders use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodeagent.check import example
from nodeagent.config import DEFAULT_PATH, load
from nodeagent.config.schema import leaves, list_of
from tests.packaged import unreachable

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "systemd"
EXAMPLE = SYSTEMD / "nodeagent.toml"
UNITS = Path("/usr/lib/systemd/system")


def install(destination: Path, what: str = "service", prefix: str = "/usr", **more: str) -> None:
    env = {**os.environ, "DESTDIR": str(destination), "PREFIX": prefix, **more}
    subprocess.run(["sh", str(SYSTEMD / "install.sh"), what], env=env, check=True, capture_output=True)


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def told(tool: str, *words: str) -> str:
    """What it says on stderr; AssertionError when it fails."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_example_has_every_key_with_its_default_and_is_as_the_program_prints_it() -> None:
    assert EXAMPLE.read_text() == example(), "nodeagent check --example > systemd/nodeagent.toml"


def test_the_example_has_no_effect_and_with_every_mark_removed_none_either(tmp_path: Path) -> None:
    without = load(None, env={})
    assert load(str(EXAMPLE), env={}).settings == without.settings
    sections = EXAMPLE.read_text().partition("\n#[[")[0]
    bare = tmp_path / "bare.toml"
    bare.write_text("\n".join(line.removeprefix("#") for line in sections.split("\n") if line[:2] != "# "))
    found = load(str(bare), env={})
    assert (found.settings, found.policy) == (without.settings, without.policy)
    assert {k for k, o in found.origins.items() if o == "default"} == set()
    assert set(found.origins) == {key for key in leaves() if not list_of(key)}


def test_files_are_where_systemd_looks_and_name_the_program_where_it_is(tmp_path: Path) -> None:
    install(tmp_path, prefix="/opt/agent")
    assert files(tmp_path) == [
        DEFAULT_PATH.lstrip("/"),
        *(
            f"opt/agent/lib/systemd/system/nodeagent{end}"
            for end in ("-restore.service", ".service", ".slice")
        ),
        "opt/agent/lib/sysusers.d/nodeagent.conf",
        "opt/agent/lib/tmpfiles.d/nodeagent.conf",
        *(
            f"opt/agent/share/nodeagent/nodeagent{end}"
            for end in ("-nic.conf", "-observe.conf", "-pmu.conf", "-realtime.conf", ".toml")
        ),
    ]
    texts = [(tmp_path / name).read_text() for name in files(tmp_path)]
    assert not any("/usr/local/" in text for text in texts)
    assert sum("/opt/agent/bin/nodeagent" in text for text in texts) == 3


@pytest.mark.parametrize("prefix", ["opt", "/opt/a b", "/opt/a|b", "/opt/a&b", "/opt/a%b"])
def test_a_prefix_that_a_unit_cannot_name_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        install(tmp_path, prefix=prefix)
    assert f"found '{prefix}'" in refused.value.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_is_there_stays_and_uninstalling_leaves_it(tmp_path: Path) -> None:
    mine = tmp_path / DEFAULT_PATH.lstrip("/")
    mine.parent.mkdir(parents=True)
    mine.write_text("[cpu]\nfloor_cores = 1.0\n")
    for _ in range(2):
        install(tmp_path)
    install(tmp_path, "uninstall")
    assert files(tmp_path) == [DEFAULT_PATH.lstrip("/")]
    assert mine.read_text() == "[cpu]\nfloor_cores = 1.0\n"


def test_systemds_own_tools_take_what_was_installed(tmp_path: Path) -> None:
    install(tmp_path)
    told("systemd-sysusers", f"--root={tmp_path}", str(tmp_path / "usr/lib/sysusers.d/nodeagent.conf"))
    assert "nodeagent:x:" in (tmp_path / "etc/group").read_text()
    if os.geteuid() == 0:
        told("systemd-tmpfiles", f"--root={tmp_path}", "--create", "nodeagent.conf")
        modes = {
            name: (tmp_path / name).stat().st_mode & 0o777 for name in ("run/nodeagent", "var/lib/nodeagent")
        }
        assert modes == {"run/nodeagent": 0o755, "var/lib/nodeagent": 0o700}


def test_the_installed_units_are_verified_in_their_root(tmp_path: Path) -> None:
    install(tmp_path)
    for target in UNITS.glob("*.target"):
        shutil.copy(target, tmp_path / "usr/lib/systemd/system", follow_symlinks=True)
    for program in ("usr/bin/nodeagent", "bin/sh", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / program)
    words = ("verify", "--man=no", f"--root={tmp_path}")
    ours = [
        line
        for line in told("systemd-analyze", *words, "nodeagent.service").split("\n")
        if "nodeagent" in line
    ]
    assert ours == []


@pytest.mark.live
def test_the_program_runs_from_where_it_was_installed(tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    look = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([python, "-c", look], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is too old, or cannot make a virtualenv")
    prefix = f"{tmp_path}/prefix"
    impatient = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "30"}
    try:
        install(Path("/"), "program", prefix, PYTHON=python, **impatient)
    except subprocess.CalledProcessError as error:
        if why := unreachable(error.stderr.decode()):
            pytest.skip(f"no package index: {why}")
        raise
    env = {"PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent"}
    words = [f"{prefix}/bin/nodeagent", "check", "-o", "json"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in Path(prefix, "lib/nodeagent/bin").iterdir() if not path.is_symlink()] == [
        "nodeagent"
    ]
