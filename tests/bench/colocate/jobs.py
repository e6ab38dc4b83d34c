"""The Batch work: real jobs that would take every CPU, whose work is counted while they run.

transcode   ffmpeg, a noisy clip from MPEG-4 to H.264     frames
compress    liblzma (xz -1), generated text               megabytes
solve       stress-ng, matrix operations                  its bogo operations
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.eval.tools import Tools, cache_home

COMPRESS, REPEAT = (Path(__file__).with_name(f"{name}.py") for name in ("compress", "repeat"))
CLIP_SECONDS, CLIP_SIZE = 10, "640x360"
OPS = 200  # bogo operations of one call of stress-ng
_FRAME = re.compile(rb"^frame=(\d+)$", re.MULTILINE)
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Kind:
    """A job: what of tools.PACKAGES it needs ("" nothing), its command for so many CPUs, its count so far."""

    needs: str
    unit: str
    words: Callable[[Tools, Path, int], list[str]]
    count: Callable[[Path], float]


def clip(tools: Tools) -> Path:
    """What is transcoded, made once: a moving picture under noise. CalledProcessError when it cannot be."""
    path = cache_home() / f"clip-{CLIP_SIZE}-{CLIP_SECONDS}.mkv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".new.mkv")
        source = f"testsrc2=size={CLIP_SIZE}:rate=30,noise=alls=12:allf=t"
        words = [tools.path("ffmpeg"), "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source]
        words += ["-t", str(CLIP_SECONDS), "-c:v", "mpeg4", "-q:v", "4", str(made)]
        subprocess.run(words, env=tools.environment(), check=True, capture_output=True, timeout=300.0)
        made.rename(path)
    return path


def _transcode(tools: Tools, count: Path, cpus: int) -> list[str]:
    told = ["-v", "error", "-nostdin", "-nostats", "-stats_period", "0.1", "-progress", str(count)]
    coded = ["-an", "-c:v", "libx264", "-preset", "veryfast", "-threads", str(cpus)]
    return [
        tools.path("ffmpeg"),
        *told,
        "-stream_loop",
        "-1",
        "-i",
        str(clip(tools)),
        *coded,
        "-f",
        "null",
        "-",
    ]


def _compress(tools: Tools, count: Path, cpus: int) -> list[str]:
    return [sys.executable, "-I", "-S", str(COMPRESS), str(count), str(cpus)]


def _solve(tools: Tools, count: Path, cpus: int) -> list[str]:
    stress = [
        tools.path("stress-ng"),
        "--matrix",
        "1",
        "--matrix-size",
        "128",
        "--matrix-ops",
        str(OPS),
        "--quiet",
    ]
    return [sys.executable, "-I", "-S", str(REPEAT), str(count), str(cpus), str(OPS), *stress]


def frames(path: Path) -> float:
    """The last count in a file of ffmpeg's -progress; 0 before there is one."""
    if not path.exists():
        return 0.0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        found = _FRAME.findall(file.read())
    return float(found[-1]) if found else 0.0


def counters(path: Path) -> float:
    """The sum of a file of u64 counters; 0 before there is one."""
    data = path.read_bytes() if path.exists() else b""
    return float(sum(number for (number,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])))


def megabytes(path: Path) -> float:
    """The same of counters of bytes, in 10^6 of them."""
    return counters(path) / 1e6


JOBS = {
    "transcode": Kind("ffmpeg", "frames", _transcode, frames),
    "compress": Kind("", "MB", _compress, megabytes),
    "solve": Kind("stress-ng", "bogo ops", _solve, counters),
}
