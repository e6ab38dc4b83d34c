"""Has plot.py draw the figures: matplotlib, no part of this project, gets a virtualenv in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.bench.colocate.report import Evaluated
from tests.bench.eval.tools import cache_home

PLOT = Path(__file__).with_name("plot.py")
REQUIREMENTS = Path(__file__).with_name("plot-requirements.txt")
LIMIT_S = 600.0


def draw(told: Evaluated, into: Path) -> None:
    """Write a PNG; OSError or SubprocessError when there is no matplotlib, or it fails."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(msgspec.json.encode(told))
        file.flush()
        _said(str(_python()), "-I", str(PLOT), file.name, str(into))


def _python() -> Path:
    """One that has matplotlib: this one, else that of a virtualenv with REQUIREMENTS, made once."""
    if importlib.util.find_spec("matplotlib") is not None:
        return Path(sys.executable)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    home = cache_home() / f"plot-{version}-{digest}"
    python = home / "bin" / "python"
    if not (home / "made").exists():
        print(f"fetching matplotlib into {home} ...", file=sys.stderr)
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)
        _said(sys.executable, "-m", "venv", str(home))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
        _said(str(python), *pip, "-r", str(REQUIREMENTS))
        (home / "made").touch()
    return python


def _said(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no answer"]
        raise subprocess.SubprocessError(f"{Path(words[0]).name}: {lines[-1]}")
