"""Where the whole agent's CPU time goes, by part and by function, on 250 real pods.

    python -m tests.bench profile [--pods 250] [--seconds 40] [--active 0.1] [--top 25] [--json]

Parts are timed exactly, each without those within it; functions are sampled, each with the kernel's time that
it asked for. Both of the loop's thread; the other threads are told as one.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cost.driver import ROOT
from tests.bench.own_pods import own_pods

STARTED_S = 14.0  # the first ticks, which are left out


def main(words: Sequence[str] = ()) -> bool:
    """Print the tables; there is no target."""
    asked = _asked(words)
    with own_pods(asked.pods, asked.active), tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        told = profiled(Path(directory), asked.seconds)
    if asked.json:
        print(json.dumps(told, indent=1))
        return True
    _show(told, asked)
    return True


def profiled(home: Path, seconds: float) -> dict[str, Any]:  # Any: as the program told it
    """What the profiled agent tells of some seconds."""
    out = home / "profile.json"
    settings = {
        "agent.state_dir": home / "state",
        "agent.run_dir": home / "run",
        "http.address": "",
        "log.level": "warning",
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "tests.bench.cost.profiled", str(out), "run", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as agent:
        try:
            time.sleep(STARTED_S + seconds)
        finally:
            agent.send_signal(signal.SIGTERM)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.bench profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=250)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--active", type=float, default=0.1, help="share of the pods that work")
    parser.add_argument("--top", type=int, default=25, help="functions to show")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(list(words))


def _show(told: dict[str, Any], asked: argparse.Namespace) -> None:
    whole = told["ms"]
    print(f"\nThe agent on {asked.pods} pods: {whole:.2f} ms of CPU time per tick, {told['ticks']} ticks")
    groups: Counter[str] = Counter()
    for part, ms in told["parts"].items():
        groups[part.partition(":")[0]] += ms
    print("  " + ", ".join(f"{name} {ms / whole:.0%}" for name, ms in groups.most_common() if ms > 0.0))
    for part, ms in sorted(told["parts"].items(), key=lambda each: -each[1]):
        if ms >= 0.005:
            print(f"  {part:<36}{ms:>9.3f} ms{ms / whole:>7.1%}")
    total = sum(told["samples"].values())
    print(f"\n  functions that were on most often ({total} samples)")
    for name, count in list(told["samples"].items())[: asked.top]:
        print(f"  {count / max(1, total):>6.1%}  {name}")


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
