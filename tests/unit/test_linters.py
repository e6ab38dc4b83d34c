"""Linters are tests: form, types, import contracts, and the sizes that keep files and functions readable."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".gitignore",
    "LICENSE",
    "Makefile",
    "README.md",
    "daemonset",
    "nodeagent",
    "proto",
    "pyproject.toml",
    "requirements.lock",
    "systemd",
    "tests",
}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40


def run(*command: str | Path) -> None:
    """Fail with the tool's own words."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def sources() -> Iterator[Path]:
    generated = ROOT / "nodeagent" / "v1"
    return (path for path in sorted((ROOT / "nodeagent").rglob("*.py")) if generated not in path.parents)


def test_ruff_finds_nothing() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_strict_finds_nothing() -> None:
    run(sys.executable, "-m", "mypy")


def test_imports_point_down() -> None:
    run(BIN / "lint-imports", "--no-logo")


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: lines for path, lines in long.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_top_level_holds_what_the_design_says_and_nothing_else() -> None:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    assert {name.partition("/")[0] for name in listed.stdout.split("\0") if name} == TOP_LEVEL


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pinned = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    assert {line.partition(">=")[0] for line in wanted} <= pinned
    assert "://" not in lock
    assert "--index" not in lock
    entries = lock.replace("\\\n", "").splitlines()
    assert all("--hash=sha256:" in entry for entry in entries if entry and not entry.lstrip().startswith("#"))


def test_the_wheel_has_the_package_alone() -> None:
    from hatchling.builders.wheel import WheelBuilder

    names = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "nodeagent/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"nodeagent"}


def test_make_lists_its_targets() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in ("run", "test", "bench", "lint", "lock", "proto", "clean"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(
    ("python", "answer"),
    [
        (
            "absent",
            "make: absent not found. Install Python 3.11 or newer: apt-get install python3 python3-venv",
        ),
        ("#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2\n[ $1 = -V ]\n", "needs Python 3.11 or newer, but"),
        (
            "#!/bin/sh\n! echo $2 | grep -q ensurepip\n",
            "Install its venv module: apt-get install python3-venv",
        ),
    ],
    ids=["absent", "old", "without venv"],
)
def test_make_says_what_to_install_when_python_does_not_do(tmp_path: Path, python: str, answer: str) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    if python.startswith("#!"):
        script = tmp_path / "python"
        script.write_text(python)
        script.chmod(0o755)
        python = str(script)
    path = os.pathsep.join(part for part in ("/usr/bin", "/bin") if not os.path.exists(f"{part}/uv"))
    command = ["make", "-C", str(tmp_path), "test", f"PYTHON={python}"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, check=False)
    assert done.returncode != 0
    assert answer in done.stderr
    assert not (tmp_path / ".venv").exists()
