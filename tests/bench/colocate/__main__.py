"""`python -m tests.bench.colocate`: what online services feel of Batch, and how much Batch gets done.

redis and nginx under open-loop load with a tide and surges, beside jobs that would take every CPU (ffmpeg,
liblzma, stress-ng): online alone, without control, with static weights, with these and Batch in SCHED_IDLE,
under koordlet's published rule, under nodeagent (by quota, and as it comes), and Batch alone. Every variant
once a round, in random order. Needs root, cgroups, and for what is not installed Debian's package lists and a
network. A full run takes 20 minutes, --quick three.

examples:
  make colocate                                             table, build/colocate.png, build/colocate.json
  python -m tests.bench.colocate --quick
  python -m tests.bench.colocate --keep runs.json           keep all runs (where there is no matplotlib) ...
  python -m tests.bench.colocate --from runs.json --plot runs.png        ... and show them again

exit code: 0; 1 when a target was missed; 2 when this machine cannot do it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
from msgspec.structs import replace

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.errors import AgentError
from tests.bench.colocate import report, stage, variants
from tests.bench.colocate.drawing import draw
from tests.bench.colocate.jobs import JOBS, clip
from tests.bench.colocate.runs import BATCH_ALONE, VARIANTS, Experiment, Machine, Run
from tests.bench.colocate.stage import Setting
from tests.bench.colocate.tide import Shape
from tests.bench.eval.tools import tools
from tests.bench.eval.victims import PROGRAMS
from tests.live.running import SLOWNESS

CREST_PER_S = {"redis": 1200.0, "nginx": 900.0}
ROUNDS, FULL = 4, Shape(warm_s=6.0, window_s=28.0)
QUICK = Shape(warm_s=4.0, window_s=14.0)
BATCH_ALONE_S = 12.0
BUDGET_S, QUICK_BUDGET_S, SET_UP_S = 22.0 * 60.0, 190.0, 6.0
FAILED = (AgentError, AssertionError, OSError, subprocess.SubprocessError)


def main(words: Sequence[str]) -> int:
    """Run or read the runs, then show them."""
    asked = _asked(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # so that pods and agents end on the way out
    if asked.read:
        experiment = joined([msgspec.json.decode(file.read_bytes(), type=Experiment) for file in asked.read])
    elif (trouble := _trouble()) is not None:
        print(f"colocate: {trouble}", file=sys.stderr)
        return 2
    else:
        experiment = _experiment(asked)
        if asked.keep is not None:
            asked.keep.parent.mkdir(parents=True, exist_ok=True)
            asked.keep.write_bytes(msgspec.json.encode(experiment))
    return _show(experiment, asked)


def _trouble() -> str | None:
    """Why nothing can be run here."""
    if os.geteuid() != 0:
        return "needs root: it makes cgroups"
    hierarchies = find_hierarchies()
    if "cpu" not in hierarchies.roots:
        return "needs the cpu controller of cgroups"
    if variants.inhabited(hierarchies):
        return "pods of `nodeagent exec` are on this node; end them first"
    had = tools(names=_programs(), place="colocate-tools")
    missing = {PROGRAMS[name].needs for name in CREST_PER_S} & had.missing.keys()
    return "; ".join(f"{name} is missing: {had.missing[name]}" for name in sorted(missing)) or None


def _programs() -> tuple[str, ...]:
    needs = {PROGRAMS[name].needs for name in CREST_PER_S} | {job.needs for job in JOBS.values()}
    return tuple(sorted(needs - {""}))


def joined(experiments: Sequence[Experiment]) -> Experiment:
    """One experiment of the rounds of several, which were set up alike."""
    runs: list[Run] = []
    for each in experiments:
        first = max((run.round for run in runs), default=-1) + 1
        runs += [replace(run, round=first + run.round) for run in each.runs]
    return replace(experiments[0], runs=tuple(runs))


def _experiment(asked: argparse.Namespace) -> Experiment:
    """All rounds; a run that is not valid is done once more while there is time."""
    had = tools(names=_programs(), place="colocate-tools")
    absent = tuple(
        f"{name}: {had.missing[job.needs]}" for name, job in JOBS.items() if job.needs in had.missing
    )
    jobs = tuple(name for name, job in JOBS.items() if job.needs not in had.missing)
    if "transcode" in jobs:
        clip(had)
    crest = {name: per_s * asked.load / SLOWNESS for name, per_s in CREST_PER_S.items()}
    agent = dict(pair.split("=", 1) for pair in asked.set)
    setting = Setting(had, QUICK if asked.quick else FULL, crest, jobs, asked.seed, agent)
    rounds = asked.rounds or (1 if asked.quick else ROUNDS)
    runs: list[Run] = []
    luck = random.Random(asked.seed)
    deadline = time.monotonic() + (QUICK_BUDGET_S if asked.quick else BUDGET_S)
    for number in range(rounds):
        order = list(asked.only or VARIANTS)
        luck.shuffle(order)
        again = [name for name in order if not _one(name, number, setting, runs)]
        ahead = (rounds - number - 1) * len(order)
        for name in again:
            if time.monotonic() + (ahead + 1) * (setting.shape.lasts_s + SET_UP_S) < deadline:
                _one(name, number, setting, runs)
    return Experiment(
        machine=machine(),
        seed=asked.seed,
        shape=setting.shape,
        crest_per_s=crest,
        agent=agent,
        absent=absent,
        runs=tuple(runs),
    )


def _one(variant: str, number: int, setting: Setting, runs: list[Run]) -> bool:
    """One run, added to `runs` if it came to its end; True when it is valid."""
    if variant == BATCH_ALONE:
        shape = Shape(setting.shape.warm_s, min(BATCH_ALONE_S, setting.shape.window_s), ())
        setting = Setting(setting.tools, shape, setting.crest_per_s, setting.jobs, setting.seed)
    try:
        stage.calm()
        run = stage.perform(variant, number, setting)
    except FAILED as error:
        print(f"{variant}, round {number}: failed: {error}", file=sys.stderr)
        return False
    runs.append(run)
    said = f"not valid: {'; '.join(run.rejected)}" if run.rejected else "valid"
    tails = ", ".join(f"{name} p99 {felt.p99_ms} ms" for name, felt in run.online.items())
    print(f"{time.strftime('%H:%M:%S')} round {number}, {variant}: {said}  {tails}", file=sys.stderr)
    return not run.rejected


def _show(experiment: Experiment, asked: argparse.Namespace) -> int:
    told = report.evaluate(experiment, rejected_too=asked.rejected_too)
    print(_printed(told, asked))
    if asked.plot is not None:
        try:
            draw(told, asked.plot)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"colocate: no plot: {error}", file=sys.stderr)
            return 2
        print(f"plotted: {asked.plot}", file=sys.stderr)
    return 1 if any(target.held is False for target in told.targets) else 0


def _printed(told: report.Evaluated, asked: argparse.Namespace) -> str:
    if asked.json:
        return msgspec.json.encode(told).decode()
    return report.as_markdown(told) if asked.markdown else report.as_text(told)


def machine() -> Machine:
    """What the figures hold for."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return Machine(
        kernel=platform.release(),
        cpu=names[0] if names else platform.machine(),
        cpus=os.cpu_count() or 1,
        virtual=" hypervisor" in info,
        cgroups=find_hierarchies().mode,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
    )


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.bench.colocate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help=f"how often each variant is run ({ROUNDS}; quick: 1)")
    parser.add_argument(
        "--only", action="append", choices=VARIANTS, metavar="VARIANT", help="may be given again"
    )
    parser.add_argument("--load", type=float, default=1.0, help="the online load, times this (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of arrivals and of the order (%(default)s)")
    text = "a setting of nodeagent, such as cpu.window_s=1; may be given again (none: its defaults)"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write all runs there, as JSON")
    text = "show runs that were kept; given again, the rounds of all of them"
    parser.add_argument("--from", type=Path, action="append", metavar="FILE", dest="read", help=text)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figures")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of the table")
    parser.add_argument("--markdown", action="store_true", help="the medians in short, for a document")
    parser.add_argument("--rejected-too", action="store_true", help="count runs that are not valid, too")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
