"""`python -m tests.bench.eval`: how well interference is found, blamed on the right one, and ended.

Without words the recorded set in the repository is decided anew. `--record DIR` makes another set on this
machine (root and two CPUs; three quarters of an hour), `--quick` one short run; `--replay DIR` decides a set
anew that was made so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.bench.eval import control, report
from tests.bench.eval.recording import load, pack
from tests.bench.eval.run import record
from tests.bench.eval.scenario import CONTROL, QUICK, SCENARIOS, Scenario
from tests.bench.eval.stage import needed
from tests.bench.eval.tools import Tools, tools

RECORDED = Path(__file__).parents[2] / "recorded"


def main(words: list[str]) -> int:
    """Record if asked for, then replay and print; 2 when this machine cannot do what is asked."""
    asked = _asked(words)
    if asked.pack is not None:
        return _pack(asked.replay or RECORDED, asked.pack)
    if asked.record is None and not asked.quick:
        return _show(asked.replay or RECORDED, asked)
    if os.geteuid() != 0:
        print("eval: recording needs root: it makes cgroups and network namespaces", file=sys.stderr)
        return 2
    scenarios = _chosen(asked.names, quick=asked.quick)
    had = tools()
    if missing := needed([*scenarios, *([] if asked.quick else [CONTROL])]) & had.missing.keys():
        print("\n".join(f"eval: {name} is missing: {had.missing[name]}" for name in missing), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="na-eval-") as directory:
        home = asked.record or Path(directory)
        _record(home, scenarios, had, asked.seed, compared=not asked.quick and not asked.names)
        return _show(home, asked)


def _record(home: Path, scenarios: tuple[Scenario, ...], had: Tools, seed: int, *, compared: bool) -> None:
    """One run after the other, each knowing the workloads from the last."""
    home.mkdir(parents=True, exist_ok=True)
    before = None
    for number, scenario in enumerate(scenarios, len(list(home.glob("*/")))):
        where = home / f"{number:02}-{scenario.name}"
        where.mkdir()
        try:
            labels = record(scenario, seed, where, had, before)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"{scenario.name}: failed: {error}", file=sys.stderr)
            continue
        said = f"rejected: {'; '.join(labels.rejected)}" if labels.rejected else "valid"
        print(f"{time.strftime('%H:%M:%S')} {scenario.name}: {said}", file=sys.stderr)
        before = where
    if compared:
        control.compare(home, had, seed, before)


def _show(home: Path, asked: argparse.Namespace) -> int:
    recordings = [one for one in load(home) if one.labels.scenario != CONTROL.name]
    if not recordings:
        print(f"eval: no recorded run in {home}", file=sys.stderr)
        return 2
    words = {"rejected_too": asked.rejected_too, "day": asked.day}
    evaluated = report.evaluate(recordings, control.read(home), **words)
    print(msgspec.json.encode(evaluated).decode() if asked.json else report.as_text(evaluated))
    return 0


def _pack(home: Path, into: Path) -> int:
    into.mkdir(parents=True, exist_ok=True)
    for one in load(home):
        if one.labels.scenario != CONTROL.name:
            pack(one, into / f"{one.name}.run.xz")
    if (compared := home / control.FILE).exists():
        (into / control.FILE).write_bytes(compared.read_bytes())
    return 0


def _chosen(names: list[str], *, quick: bool) -> tuple[Scenario, ...]:
    if quick:
        return QUICK
    known = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := set(names) - known.keys():
        raise SystemExit(f"eval: no scenario {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return tuple(known[name] for name in names) or SCENARIOS


def _asked(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.eval", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios; all of them without any")
    parser.add_argument("--quick", action="store_true", help="one short run")
    parser.add_argument("--record", type=Path, metavar="DIR", help="make a set there")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="decide a set anew that is there")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="put the set of --replay there, packed")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--day", action="store_true", help="play the recorded calm for a day (2 minutes)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rejected-too", action="store_true", help="judge by runs that are not valid, too")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
