"""`nodeagent exec`: run one command in a pod cgroup of its own, with an agent beside it or without.

    claim written and locked -> cgroup made -> fork -> child enters every hierarchy and execs
                                               parent waits and forwards signals
    leftovers ended, cgroup removed -> claim removed

Invariant: whatever has a cgroup has a claim, so that what a killed exec leaves is found and removed by the
next one; and the command gets each signal once, as if it had been started without us.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from nodeagent.kernel.devices import DeviceFiles
from nodeagent.kernel.errno import translated
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies, under
from nodeagent.kernel.place import limit_cpu, make_pod_cgroup, remove_if_empty, remove_pod_cgroup
from nodeagent.model.errors import Failed, Refused
from nodeagent.model.pod import OWN_ROOT, Claim, Priority, Qos, is_device_name
from nodeagent.pods.claims import MAX_CORES, NAME, lock_dead_claims, remove_claim, write_claim
from nodeagent.pods.limit import check_limit

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as POSIX has it for shells

_FORWARDED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
        signal.SIGTSTP,
    }
)
_WAITED = _FORWARDED | {signal.SIGCHLD}
_JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h: a terminal's signals have it
_JOIN_HINTS = {
    errno.EINVAL: "a real-time task cannot enter a v1 cpu cgroup: start the command with `chrt --other 0`",
    errno.ENOSPC: "cpuset.cpus or cpuset.mems of that cgroup is empty",
    errno.EOPNOTSUPP: "a cgroup above has processes of its own, or is threaded",
}


def launch(  # noqa: PLR0913  # one for each option of the command line
    command: Sequence[str],
    *,
    qos: Qos,
    priority: Priority = Priority.MEDIUM,
    cpus: float | None = None,
    cpu_limit: float | None = None,
    memory: int | None = None,
    name: str | None = None,
    numa_bind: bool = False,
    exclusive: bool = False,
    near: str = "",
    hands_off: bool = False,
    run_dir: str,
    host_root: str = "/",
) -> int:
    """Run `command` in the cgroup nodeagent/`qos`/`name`; returns its exit status, or 128 + its signal.

    `cpus` (cores) and `memory` (bytes) are its request, which a running agent reads; they limit nothing by
    themselves. `cpu_limit` (cores) is its CPU quota. With `numa_bind` it asks the agent for CPUs and memory
    of its own, with `exclusive` for whole NUMA nodes, `near` a NIC or GPU; with `hands_off` to write nothing
    of it. 127 or 126 when the command cannot be executed. Failed for a bad or running name, else Refused.
    """
    claim = replace(
        _claim(command, qos, priority, cpus, memory, name),
        numa_bind=numa_bind,
        exclusive=exclusive,
        near=near,
        hands_off=hands_off,
    )
    _check_numa(claim)
    check_limit(cpus, cpu_limit)
    if near and near not in {device.name for device in DeviceFiles(under(host_root, "/sys")).read()}:
        _warn([f"{near} is no NIC or GPU of this machine, so any place is near enough"])
    hierarchies = find_hierarchies(host_root)
    with _signals_held() as mask:
        remove_leftovers(run_dir, hierarchies)
        with _pod_cgroup(run_dir, hierarchies, claim) as procs:
            limit_cpu(hierarchies, claim.cgroup, cpu_limit)
            return _run(command, procs, mask)


def remove_leftovers(run_dir: str, hierarchies: Hierarchies) -> None:
    """Remove cgroup and claim of each exec that was killed and whose command has ended since."""
    for cgroup, lock in lock_dead_claims(run_dir):
        if remove_if_empty(hierarchies, cgroup):
            remove_claim(run_dir, cgroup)
        os.close(lock)


@contextlib.contextmanager
def _pod_cgroup(run_dir: str, hierarchies: Hierarchies, claim: Claim) -> Iterator[tuple[str, ...]]:
    """Claim and cgroup for as long as the context lasts; yields the files to enter the cgroup by."""
    running = Failed(f"{claim.name} is running already", hint="choose another --name")
    try:
        lock = write_claim(run_dir, claim)
    except FileExistsError:
        raise running from None
    try:
        if not remove_if_empty(hierarchies, claim.cgroup):  # another run directory's, or made by hand
            raise running
        placed = make_pod_cgroup(hierarchies, claim.cgroup)
        _warn(placed.warnings)
    except BaseException:
        remove_claim(run_dir, claim.cgroup)
        os.close(lock)
        raise
    try:
        yield placed.procs
    finally:
        left = remove_pod_cgroup(hierarchies, claim.cgroup)
        _warn(left)
        if not left:  # the claim stays where the cgroup does: a later exec tries again
            remove_claim(run_dir, claim.cgroup)
        os.close(lock)


def _claim(
    command: Sequence[str],
    qos: Qos,
    priority: Priority,
    cpus: float | None,
    memory: int | None,
    name: str | None,
) -> Claim:
    if not command:
        raise _misused("no command to run", "nodeagent exec --qos batch -- COMMAND")
    name = _default_name(command[0]) if name is None else name
    if not NAME.fullmatch(name):
        raise _misused(
            f"not a pod name: {name[:80]!r}",
            "at most 63 letters, digits, '_', '.' and '-', the first one a letter or digit",
        )
    if cpus is not None and not 0.0 < cpus <= MAX_CORES:
        raise _misused(f"--cpus {cpus}: not a number of cores", f"more than 0, at most {MAX_CORES:.0f}")
    if memory is not None and not 0 < memory < 1 << 63:
        raise _misused(f"--memory {memory}: not a number of bytes", "more than 0")
    return Claim(
        cgroup=f"{OWN_ROOT}/{qos.value}/{name}",
        name=name,
        qos=qos,
        pid=os.getpid(),
        priority=priority,
        cpus=cpus,
        memory=memory,
    )


def _check_numa(claim: Claim) -> None:
    """What the options ask of NUMA must go together."""
    if claim.hands_off and (claim.numa_bind or claim.qos is Qos.BATCH):
        other = "--numa bind" if claim.numa_bind else "--qos batch"
        raise _misused(f"--hands-off leaves the pod as it is, {other} does not", "give one of the two")
    if not claim.numa_bind:
        if claim.exclusive or claim.near:
            wrong = "--exclusive" if claim.exclusive else "--near"
            raise _misused(f"{wrong} says how to bind, but nothing is to be bound", "add --numa bind")
        return
    if claim.qos is not Qos.LS:
        raise _misused(f"a {claim.qos.value} pod cannot be bound", "--numa bind is for --qos ls")
    if claim.cpus is None and not claim.exclusive:
        raise _misused("bind to how many cores?", "add --cpus N, or --exclusive for a whole NUMA node")
    if claim.near and not is_device_name(claim.near):
        raise _misused(f"--near {claim.near[:80]!a}: not the name of a NIC", "as in `ip link`: --near eth1")


def _default_name(program: str) -> str:
    base = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(program)).lstrip("-_.")
    return f"{base[:40] or 'command'}-{os.getpid()}"


def _misused(message: str, hint: str) -> Failed:
    error = Failed(message, hint)
    error.exit_code = 2
    return error


@contextlib.contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    """Signals wait until they are asked for, so that none interrupts the cleaning up; yields the old mask."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited SIG_IGN would lose the exit status
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    try:
        yield {signal.Signals(number) for number in mask}
    finally:
        while signal.sigtimedwait(_WAITED, 0) is not None:
            pass  # they were meant for a command that has ended
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(command: Sequence[str], procs: tuple[str, ...], mask: set[signal.Signals]) -> int:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, procs, mask, writer)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as report:
        failure = report.read()  # empty once the pipe is closed by a successful exec
    status = _wait(pid)
    return _explained(failure, command[0]) if failure else status


def _become(command: Sequence[str], procs: tuple[str, ...], mask: set[signal.Signals], writer: int) -> None:
    """In the child: enter the cgroups and exec; never returns. A failure is told through `writer`."""
    where = ""
    try:
        for where in procs:
            fd = os.open(where, os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"0")
            os.close(fd)
        where = ""
        # What Python changed; an ignored SIGHUP (nohup) is the caller's wish and stays.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, *filter(_is_handled, _FORWARDED)):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(writer, f"{error.errno} {where}".encode())
    except BaseException as error:
        os.write(writer, f"{errno.EINVAL} {error}".encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def _is_handled(number: signal.Signals) -> bool:
    return callable(signal.getsignal(number))


def _explained(failure: str, program: str) -> int:
    """The exit status for a failed exec; Refused when a cgroup could not be entered."""
    number, _, where = failure.partition(" ")
    error = OSError(int(number), os.strerror(int(number)))
    if where:
        raise Refused(
            f"cannot enter {where}: {error.strerror}",
            hint=_JOIN_HINTS.get(int(number), translated(error, where).hint),
        )
    found = error.errno not in (errno.ENOENT, errno.ENOTDIR)
    reason = error.strerror if found else "command not found"
    sys.stderr.write(f"nodeagent exec: {program}: {reason}\n")
    return NOT_EXECUTABLE if found else NOT_FOUND


def _wait(pid: int) -> int:
    """Forward signals until `pid` ends; its exit status, or 128 + the signal that ended it."""
    while True:
        info = signal.sigwaitinfo(_WAITED)
        if info.si_signo != signal.SIGCHLD:
            if not _reached_all(info):
                os.kill(pid, info.si_signo)
            continue
        ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if ended and os.WIFSTOPPED(status):
            _stop_too(signal.Signals(os.WSTOPSIG(status)))
        elif ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _reached_all(info: signal.struct_siginfo) -> bool:
    """True for what a terminal sends to its whole foreground group; a hangup goes to the session's leader."""
    alone = info.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
    return info.si_code == _SI_KERNEL and not alone


def _stop_too(number: signal.Signals) -> None:
    """Stop as the command has, for the shell to take over; a SIGSTOP was meant for the command alone."""
    if number in _JOB_CONTROL:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)  # returns when the shell has continued us
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED & {number})


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"nodeagent exec: warning: {line}\n")
