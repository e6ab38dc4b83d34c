"""The Dockerfile is pinned, has two stages and no root; its steps, done in a directory, make a program."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from nodeagent import __version__
from tests.packaged import HADOLINT, NotToBeHad, unpacked, unreachable
from tests.unit.charts import ROOT, agent

DOCKERFILE = ROOT / "daemonset" / "Dockerfile"
IGNORED = ROOT / ".dockerignore"
LIMIT_S = 80


class Step(NamedTuple):
    """One instruction of the Dockerfile."""

    word: str
    rest: str


def steps() -> list[Step]:
    """All of them, with the values of ARG put in."""
    text = DOCKERFILE.read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    made = [Step(*line.split(" ", 1)) for line in lines]
    given = dict(step.rest.split("=", 1) for step in made if step.word == "ARG")
    return [Step(s.word, re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], s.rest)) for s in made]


def stages() -> list[list[Step]]:
    """The steps from each FROM on."""
    found: list[list[Step]] = []
    for step in steps():
        if step.word == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


def let_through(path: str) -> bool:
    """By .dockerignore: the last line that fits decides."""
    lines = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    through = True
    for line in lines:
        pattern = line.removeprefix("!")
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in path.split("/"))
        else:
            fits = fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/")
        if fits:
            through = line.startswith("!")
    return through


def test_hadolint_finds_nothing() -> None:
    try:
        hadolint = unpacked(HADOLINT) / "hadolint"
    except NotToBeHad as error:
        pytest.skip(str(error))
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_are_on_one_base_that_is_known_by_its_digest() -> None:
    bases = [stage[0].rest.split()[0] for stage in stages()]
    assert len(bases) == 2 and len(set(bases)) == 1
    exact = r"docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}"
    assert re.fullmatch(exact, bases[0])


def test_every_package_is_pinned_with_its_hash() -> None:
    for step in steps():
        if step.word == "RUN":
            assert all("--require-hashes" in each for each in step.rest.split("&&") if " -r " in each)
    locked = set(re.findall(r"(?m)^([\w.-]+==\S+)", (ROOT / "requirements.lock").read_text()))
    for name in ("requirements.txt", "build-requirements.txt"):
        text = (ROOT / "daemonset" / name).read_text()
        pins = set(re.findall(r"(?m)^([\w.-]+==\S+)", text))
        assert len(pins) > 4 and text.count("--hash=sha256:") >= len(pins)
        assert {pin for pin in pins if not pin.startswith("setuptools==")} <= locked, "make lock"
        assert "://" not in text


def test_the_image_runs_as_the_user_of_the_profile_that_observes() -> None:
    last = {step.word: step.rest for step in stages()[-1]}
    user = agent()["securityContext"]
    assert last["USER"] == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert json.loads(last["ENTRYPOINT"]) == ["nodeagent"]
    assert "RUN" not in last and "ADD" not in last


def test_what_is_copied_is_there_and_all_else_stays_out_of_the_build() -> None:
    for step in stages()[0]:
        if step.word == "COPY":
            *sources, _ = step.rest.split()
            assert all((ROOT / source).exists() and let_through(source) for source in sources)
    for path in (".git", ".venv", "tests", "daemonset/chart", "nodeagent/__pycache__", "README.md.orig"):
        assert not let_through(path), path
    assert let_through("nodeagent/cli.py")


def test_its_steps_make_a_program_that_runs(tmp_path: Path) -> None:
    for name in ("src", "wheels", "opt", "base"):
        (tmp_path / name).mkdir()
    base = tmp_path / "base"
    python = Path(sys.base_prefix, "bin", "python3")
    options = ("--without-pip", "--system-site-packages")
    subprocess.run([python, "-m", "venv", *options, base], check=True, timeout=LIMIT_S)
    (base / "bin" / "pip").write_text(f'#!/bin/sh\nexec {base}/bin/python -m pip "$@"\n')
    (base / "bin" / "pip").chmod(0o755)
    pip = subprocess.run([base / "bin" / "pip", "--version"], capture_output=True, check=False)
    if pip.returncode != 0:
        pytest.skip("the interpreter that made .venv has no pip")
    environment = {
        "PATH": f"{base}/bin:/usr/bin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        **_pip_settings(),
    }

    def placed(text: str) -> str:
        text = text.replace("--no-cache-dir ", "")  # here there is one, and it saves time
        return re.sub(r"(?<![\w/.])/(opt|wheels)\b", rf"{tmp_path}/\1", text)

    for step in stages()[0]:
        if step.word == "COPY":
            *sources, into = step.rest.split()
            for source in sources:
                at, to = ROOT / source, tmp_path / "src" / into / ("" if into != source else ".")
                _copy(at, to)
        elif step.word == "RUN":
            carried_out(placed(step.rest), tmp_path / "src", environment)
    program = tmp_path / "opt" / "nodeagent" / "bin" / "nodeagent"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert __version__ in version.stdout
    code = "import nodeagent.kube, nodeagent.publish, nodeagent.agent, jeepney, pyroute2"
    subprocess.run([program.with_name("python"), "-c", code], cwd="/", check=True, timeout=60)
    assert not list(tmp_path.glob("opt/nodeagent/lib/*/site-packages/pytest"))


def carried_out(command: str, place: Path, environment: dict[str, str]) -> None:
    """A step; skipped where there is no package index."""
    try:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the packages did not come within {LIMIT_S} s")
    if done.returncode != 0 and (why := unreachable(done.stderr)):
        pytest.skip(f"no package index: {why}")
    assert done.returncode == 0, done.stdout + done.stderr


def _pip_settings() -> dict[str, str]:
    """How this machine reaches a package index; not for long where it cannot."""
    names = ("PIP_", "http", "HTTP", "SSL", "XDG_CACHE_HOME")
    given = {name: value for name, value in os.environ.items() if name.startswith(names)}
    return given | {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "30"}


def _copy(source: Path, into: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, into)
