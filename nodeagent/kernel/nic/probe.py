"""What this kernel does for us, found out by a process of its own in a network namespace of its own.

A process, because a namespace is left by ending: whatever goes wrong, even a crash of the agent, nothing
stays; and because in a process with many threads unshare(2) would give one of them another network.
A network namespace takes CAP_SYS_ADMIN, or a user namespace around it. In one of these all can be tried but
eBPF, for which capabilities have to be those of the host (bpf_capable in include/linux/capability.h).
Invariant: nothing of the host's network is touched; the answer comes within `timeout_s` or is "no".
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.nic.probe_cgroup import prepare, sweep
from nodeagent.model.errors import AgentError
from nodeagent.model.nic import Classifier, NicSupport, Scheduler

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAP_NET_ADMIN = 12
_PERMIT = "under systemd install nodeagent-nic.conf; in a container add NET_ADMIN and SYS_ADMIN"
_LINE_CHARACTERS = 300


def probe(timeout_s: float = 5.0, host_root: str = "/") -> NicSupport:
    """Try everything; about 0.3 s of CPU. Never fails: what could not be tried does not work."""
    command = [sys.executable, "-P", "-m", __name__, str(timeout_s), host_root]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return _unanswered(f"the probe took more than {timeout_s:g} s")
    except OSError as error:
        return _unanswered(f"the probe cannot be started: {error}")
    finally:
        with suppress(AgentError):
            sweep(find_hierarchies(host_root))
    try:
        return msgspec.json.decode(done.stdout, type=NicSupport)
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        return _unanswered(f"the probe ended without an answer: {said[-1]}")


def main(timeout_s: str, host_root: str) -> None:
    """In the process of its own: print the answer."""
    signal.alarm(int(float(timeout_s)) + 1)  # also when nobody waits for it any more
    if why := _without_permission() or _without_namespace(host_root):
        support = _nothing(f"{why}; {_PERMIT}")
    else:
        support = _tried(host_root)
    sys.stdout.buffer.write(msgspec.json.encode(support))


def _without_permission() -> str:
    """Not empty: in a namespace of its own it could do what it may not do where the NICs are."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return "" if effective >> _CAP_NET_ADMIN & 1 else "the agent lacks CAP_NET_ADMIN"


def _without_namespace(host_root: str) -> str:
    """Enter one to try in; not empty: why there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return ""
    with suppress(AgentError):
        prepare(find_hierarchies(host_root))
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        return ""
    return f"no network namespace to try in: {os.strerror(ctypes.get_errno())}"


def _tried(host_root: str) -> NicSupport:
    from pyroute2 import IPRoute  # what only the child needs

    from nodeagent.kernel.nic import trials
    from nodeagent.kernel.nic.bench import Bench

    try:
        places = find_hierarchies(host_root)
        sweep(places)
        ip = IPRoute()
        bench = Bench(ip)
    except Exception as error:  # whatever it is: it is said, and nothing is shaped
        return _nothing(f"no veth pair to try on: {_line(error)}")
    # The bench is taken apart bit by bit: the order matters.
    htb = _why_not(lambda: trials.htb(bench))
    classifiers = {
        Classifier.NFT: _why_not(lambda: trials.nft(bench, places)),
        Classifier.BPF: _why_not(lambda: trials.bpf(bench, places)),
        Classifier.NET_CLS: _why_not(lambda: trials.net_cls(bench, places)),
        Classifier.U32: _why_not(lambda: trials.u32(bench)),
    }
    ingress = _why_not(lambda: trials.ingress(bench))
    veth = _why_not(lambda: trials.veth(bench))
    bridge = _why_not(lambda: trials.bridge(bench))
    return NicSupport(
        schedulers={
            Scheduler.HTB: htb,
            Scheduler.EDT: _why_not(lambda: trials.edt(bench)),
            Scheduler.VETH: veth,
            Scheduler.OBSERVE: "",
        },
        classifiers=classifiers,
        ingress=ingress,
        bridge=bridge,
        fq_codel=trials.fq_codel(bench),
    )


def _why_not(trial: Callable[[], None]) -> str:
    try:
        trial()
    except Exception as error:  # one thing that does not work leaves the others
        return _line(error)
    return ""


def _line(error: Exception) -> str:
    text = f"{error}; {error.hint}" if isinstance(error, AgentError) and error.hint else str(error)
    if not isinstance(error, AgentError):
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())[:_LINE_CHARACTERS] or type(error).__name__


def _unanswered(why: str) -> NicSupport:
    return replace(_nothing(why), unanswered=why)


def _nothing(why: str) -> NicSupport:
    return NicSupport(
        schedulers={each: "" if each is Scheduler.OBSERVE else why for each in Scheduler},
        classifiers={each: why for each in Classifier if each is not Classifier.NONE},
        ingress=why,
        bridge=why,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
