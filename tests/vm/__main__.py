"""`python -m tests.vm`: build, run, start, exec, link, stop, test."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import tests.vm
from tests.vm import project, suite
from tests.vm.boot import boot, booted, build, home_of, stop
from tests.vm.guest import Guest
from tests.vm.host import VmError, say
from tests.vm.machine import CGROUP_MODES, Machine, Mount

FAILED = 125
EXAMPLES = """
examples:
  python -m tests.vm run --project -- nodeagent doctor      boot, run one command, destroy
  python -m tests.vm start --name a --share .               keep it; then exec, link and stop --name a
  python -m tests.vm exec --name a -- numactl -H
  python -m tests.vm link --name a nic0 off                 pull a cable
  python -m tests.vm test --short                           boot v2, install, the core of the live tests

exit code: the command's; 124 at its time limit; 125 when the machine failed.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.vm",
        description=tests.vm.__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="do", required=True, metavar="COMMAND")
    texts = {
        "build": "fill the cache (the others do it too)",
        "run": "boot, run a command, destroy",
        "start": "boot and keep running",
        "exec": "run a command in a machine that was started",
        "link": "pull or plug a cable",
        "stop": "destroy",
        "test": "the live tests, one boot for each cgroup mode",
    }
    sub = {name: commands.add_parser(name, help=text, description=text) for name, text in texts.items()}
    for name in ("build", "run", "start", "test"):
        _machine_options(sub[name])
    for name in ("run", "start"):
        _content_options(sub[name])
    for name in ("start", "exec", "link", "stop"):
        sub[name].add_argument("--name", default="default", help="the machine (default: %(default)s)")
    sub["start"].add_argument(
        "--lifetime", type=int, default=7200, metavar="S", help="then it ends (%(default)s)"
    )
    for name in ("run", "exec"):
        _command_options(sub[name])
    sub["link"].add_argument("nic", help="nic0, peer1, ...")
    sub["link"].add_argument("state", choices=("on", "off"))
    _test_options(sub["test"])
    return made


def _machine_options(sub: argparse.ArgumentParser) -> None:
    default = Machine()
    numbers = {
        "nodes": "NUMA nodes with CPUs and memory; each is a socket",
        "memoryless": "further nodes without memory",
        "cpuless": "further nodes without CPUs",
        "cores": "cores a node",
        "threads": "threads a core",
        "memory-mib": "memory a node",
        "nics": "NICs, each with a twin",
        "scratch-mib": "an empty disk on /scratch",
    }
    for name, text in numbers.items():
        value = getattr(default, name.replace("-", "_"))
        sub.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{text} (%(default)s)")
    words = {
        "kernel": "Debian kernel series, 6.1 or 6.12",
        "cpu": "QEMU's CPU model",
        "nic-model": "or e1000e",
        "append": "more words for the kernel",
        "qemu-args": "more arguments for QEMU",
    }
    for name, text in words.items():
        value = getattr(default, name.replace("-", "_"))
        sub.add_argument(f"--{name}", default=value, help=f"{text} ({value})" if value else text)
    sub.add_argument("--cgroup", choices=list(CGROUP_MODES), default=default.cgroup, help="(%(default)s)")
    text = "more Debian packages, comma-separated; each set makes an image of its own"
    sub.add_argument("--packages", default=(), type=lambda names: tuple(names.split(",")), help=text)


def _content_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--project", action="store_true", help="install this checkout: nodeagent, its unit, its tests"
    )
    text = "have a folder live in the guest (GUESTDIR: /host)"
    sub.add_argument("--copy", action="append", default=[], metavar="DIR:GUESTDIR", help="bring a folder in")
    sub.add_argument("--share", action="append", default=[], metavar="DIR[:GUESTDIR[:ro]]", help=text)


def _command_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="for the command (%(default)s)"
    )
    sub.add_argument("--env", action="append", default=[], metavar="K=V")
    sub.add_argument("--cwd")
    sub.add_argument("command", nargs="+")


def _test_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--short", action="store_true", help="v2 alone, and of the live tests the core alone")
    sub.add_argument(
        "--modes",
        type=lambda names: tuple(names.split(",")),
        help=f"which machines ({','.join(suite.KINDS)})",
    )
    sub.add_argument("pytest", nargs="*", help="for pytest, after --")


def machine(given: argparse.Namespace) -> Machine:
    """The machine that the options describe."""
    fields = {name: getattr(given, name) for name in Machine.__dataclass_fields__ if hasattr(given, name)}
    copies = [_mount(text, live=False) for text in getattr(given, "copy", [])]
    shares = [_mount(text, live=True) for text in getattr(given, "share", [])]
    return Machine(**fields, mounts=(*copies, *shares))


def _mount(text: str, live: bool) -> Mount:
    path, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not Path(path).is_dir() or "," in path:
        raise VmError(f"cannot bring in {path!r}: not a folder, or a comma in its name")
    return Mount(Path(path).resolve(), target or "/host", live, readonly=mode == "ro")


def _in_guest(guest: Guest, given: argparse.Namespace) -> int:
    env = dict(pair.split("=", 1) for pair in given.env)
    return guest.run(given.command, given.timeout, env, given.cwd)


def _boot(given: argparse.Namespace) -> int:
    """run and start: with this checkout when asked for."""
    made = machine(given)
    with tempfile.TemporaryDirectory(prefix="nodeagent-vm-") as work:
        if given.project:
            made = replace(made, mounts=(*made.mounts, *project.mounts(Path(work))))
        if given.do == "start":
            guest = boot(made, given.name, given.lifetime)
            return _installed(guest, given)
        with booted(made) as guest:
            return _installed(guest, given) or _in_guest(guest, given)


def _installed(guest: Guest, given: argparse.Namespace) -> int:
    if given.project:
        project.install(guest)
    return 0


def main() -> int:
    given = parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # so that machines are ended on the way out
    if given.do == "build":
        print(*build(machine(given)), sep="\n")
        return 0
    if given.do == "test":
        modes = given.modes or (("v2",) if given.short else tuple(suite.KINDS))
        return suite.run(machine(given), modes, given.short, given.pytest)
    if given.do in ("run", "start"):
        return _boot(given)
    home = home_of(given.name)
    if given.do == "stop":
        stop(home)
    elif given.do == "link":
        Guest(home).qmp("set_link", name=given.nic, up=given.state == "on")
    else:
        return _in_guest(Guest(home), given)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (VmError, OSError) as error:
        say(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os._exit(1)
