"""What `nodeagent exec` says of its pods, in files that a running agent reads.

    RUN_DIR/pods/            0700
        batch.sort.json      0600, one Claim; locked (flock) by its exec for as long as that lives

Invariant: a claim appears whole and locked, and never replaces another. A file that is huge, garbled, of the
wrong owner or about another cgroup is ignored: it could only add to what the cgroup's own path tells.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator

import msgspec

from nodeagent.model.errors import AgentError, Garbled, Refused
from nodeagent.model.pod import OWN_ROOT, Claim, Qos, is_device_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
MAX_CORES = 65_536.0
MAX_CLAIM_BYTES = 4096
MAX_CLAIMS = 20_000  # as many as a walk takes cgroups

_FILE = re.compile(rf"(ls|mid|batch)\.({NAME.pattern})\.json")


def read_claims(run_dir: str, ignored: Callable[[str, str], None] | None = None) -> dict[str, Claim]:
    """All valid claims by cgroup path. `ignored` is called with file and reason for each that is not one."""
    claims: dict[str, Claim] = {}
    try:
        for path, cgroup in _files(run_dir):
            try:
                claims[cgroup] = _read(path, cgroup)
            except FileNotFoundError:
                continue  # its exec has ended
            except (AgentError, OSError) as error:
                if ignored is not None:
                    ignored(path, str(error))
    except OSError as error:
        if ignored is not None:
            ignored(f"{run_dir}/pods", error.strerror or str(error))
    return claims


def write_claim(run_dir: str, claim: Claim) -> int:
    """Publish the claim. Returns the descriptor that holds its lock: the claim is dead once it is closed.

    FileExistsError when this cgroup is claimed already; Refused when the files cannot be written.
    """
    path = _path(run_dir, claim.cgroup)
    temporary = f"{path}.{os.getpid()}.new"
    fd = -1
    try:
        os.makedirs(run_dir, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{run_dir}/pods", mode=0o700)
        _unlink(temporary)  # of a dead process that had our number
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, msgspec.json.encode(claim))
        os.link(temporary, path)  # unlike rename it fails when there is one
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        if isinstance(error, FileExistsError) and fd >= 0:
            raise
        raise Refused(
            f"cannot write the pod's claim {path}: {error.strerror}",
            hint="run as root, or name a directory of your own with --run-dir",
        ) from error
    finally:
        if fd >= 0:
            _unlink(temporary)
    return fd


def remove_claim(run_dir: str, cgroup: str) -> None:
    """Remove the file that claims `cgroup`; call it with its lock held. No error when it is gone."""
    _unlink(_path(run_dir, cgroup))


def lock_dead_claims(run_dir: str) -> Iterator[tuple[str, int]]:
    """(cgroup path, locked descriptor) of each claim whose exec is dead; close the descriptor.

    Nothing when the directory is not there or cannot be read.
    """
    with contextlib.suppress(OSError):
        for path, cgroup in _files(run_dir):
            fd = _lock_if_dead(path)
            if fd is not None:
                yield cgroup, fd


def _lock_if_dead(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            return fd
    except OSError:  # it lives, or another has cleaned up meanwhile
        pass
    os.close(fd)
    return None


def _files(run_dir: str) -> list[tuple[str, str]]:
    """(file, cgroup path) of all files that are named like claims."""
    try:
        names = sorted(os.listdir(f"{run_dir}/pods"))
    except FileNotFoundError:
        return []
    matches = [match for match in map(_FILE.fullmatch, names[:MAX_CLAIMS]) if match is not None]
    return [(f"{run_dir}/pods/{match[0]}", f"{OWN_ROOT}/{match[1]}/{match[2]}") for match in matches]


def _read(path: str, cgroup: str) -> Claim:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Garbled("not a regular file")
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise Refused("others could have written it")
        if status.st_size > MAX_CLAIM_BYTES:
            raise Garbled(f"longer than {MAX_CLAIM_BYTES} bytes")
        text = os.read(fd, MAX_CLAIM_BYTES)
    finally:
        os.close(fd)
    try:
        claim = msgspec.json.decode(text, type=Claim)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(str(error)) from error
    _check(claim, cgroup)
    return claim


def _check(claim: Claim, cgroup: str) -> None:
    if claim.cgroup != cgroup or cgroup != f"{OWN_ROOT}/{claim.qos.value}/{claim.name}":
        raise Garbled("it claims another cgroup than its name says")
    if claim.cpus is not None and not 0.0 < claim.cpus <= MAX_CORES:
        raise Garbled(f"cpus is {claim.cpus}")
    if (claim.numa_bind or claim.exclusive or claim.near) and not _binds(claim):
        raise Garbled("what it asks of NUMA does not go together")
    if claim.hands_off and (claim.numa_bind or claim.qos is Qos.BATCH):
        raise Garbled("it asks to be left alone and to be bound or bounded")
    if claim.memory is not None and not 0 < claim.memory < 1 << 63:
        raise Garbled(f"memory is {claim.memory}")


def _binds(claim: Claim) -> bool:
    return claim.numa_bind and claim.qos is Qos.LS and (not claim.near or is_device_name(claim.near))


def _path(run_dir: str, cgroup: str) -> str:
    _root, qos, name = cgroup.split("/")
    return f"{run_dir}/pods/{qos}.{name}.json"


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
