"""Start a machine, wait until it takes commands, end it.

Invariant: a machine whose start failed, or whose command has ended, leaves neither a process nor a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.vm import kernel, root
from tests.vm.guest import Guest, alive
from tests.vm.host import VmError, cache_dir, counter_khz, need, say, sh
from tests.vm.machine import Files, Machine, qemu_argv

BOOT_TIMEOUT_S = 240.0
PR_SET_PDEATHSIG = 1
YOUNG_S = 60.0


def home_of(name: str) -> Path:
    """The directory of a machine; VmError for an impossible name, or when another user owns the place."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name) or name.startswith("."):
        raise VmError(f"a machine cannot be called {name!r}: letters, digits, '_', '.', '-', at most 40")
    above = Path(tempfile.gettempdir(), f"nodeagent-vm-{os.getuid()}")
    above.mkdir(mode=0o700, exist_ok=True)
    if above.lstat().st_uid != os.getuid() or above.is_symlink():
        raise VmError(f"{above} belongs to another user")
    return above / name


def build(machine: Machine) -> tuple[Path, Path]:
    """(root image, kernel folder), made where the cache lacks them. Several processes may call it at once."""
    cache = cache_dir()
    parts = (sorted({*root.PACKAGES, *machine.packages}), root.guest_files(), root.MASKED)
    image = cache / f"root-{_digest(*parts)}.ext4"
    parts_of_kernel = (kernel.init_script(), kernel.BOOT_MODULES, kernel.KEPT_MODULES.pattern)
    folder = cache / f"kernel-{machine.kernel}-{_digest(*parts_of_kernel)}"
    if image.exists() and folder.exists():
        return image, folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            root.build_root(cache, machine.packages, image)
        if not folder.exists():
            kernel.build_kernel(cache, machine.kernel, folder)
    return image, folder


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def boot(machine: Machine, name: str, lifetime_s: int | None = None) -> Guest:
    """A machine that takes commands. It dies with this process, or, with a lifetime, by itself after that."""
    need("qemu-system-x86_64", "timeout", "tar")
    image, folder = build(machine)
    files = Files(image, folder, home_of(name))
    _sweep(files.home.parent)
    begin = time.monotonic()
    try:
        files.home.mkdir(mode=0o700)
    except FileExistsError:
        raise VmError(f"there is a machine {name} already: 'stop --name {name}' first") from None
    try:
        _make_disks(machine, files)
        argv = qemu_argv(_timed(machine), files, os.urandom(16).hex())
        _start(
            argv if lifetime_s is None else ["timeout", "-k", "5", str(lifetime_s), *argv],
            files.home,
            lifetime_s,
        )
        guest = Guest(files.home)
        _set_up(guest, machine)
    except BaseException as error:
        if isinstance(error, VmError | OSError):
            _tell_logs(files.home)
        stop(files.home)
        raise
    say(f"{name} is up after {time.monotonic() - begin:.1f} s: {machine.described()}")
    return guest


def _timed(machine: Machine) -> Machine:
    """Told how fast its clock runs."""
    khz = counter_khz()
    return replace(machine, append=f"{machine.append} tsc_early_khz={khz}") if khz else machine


def _make_disks(machine: Machine, files: Files) -> None:
    for number, mount in enumerate(machine.copies):
        if mount.source.is_file():
            files.copy(number).symlink_to(mount.source)
        else:
            unwanted = ("--exclude=.git", "--exclude=__pycache__")
            sh("tar", *unwanted, "-C", mount.source, "-cf", files.copy(number), ".")
    if machine.scratch_mib:
        with files.scratch.open("wb") as scratch:
            scratch.truncate(machine.scratch_mib << 20)


def _start(argv: list[str], home: Path, lifetime_s: int | None) -> None:
    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with (home / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent if lifetime_s is None else None,  # noqa: PLW1509  no threads here
        )
    (home / "pid").write_text(str(process.pid))


def _set_up(guest: Guest, machine: Machine) -> None:
    """Wait for systemd, then mounts and addresses; VmError when that does not come about."""
    mounts = [
        word
        for number, mount in enumerate(machine.shares)
        for word in ("share", f"share{number}", mount.target)
    ]
    for number, mount in enumerate(machine.copies):
        mounts += ["copy", f"copy{number}", mount.target]
    script = Path(__file__).with_name("inside").joinpath("setup.sh").read_text()
    if guest.run(["sh", "-c", script, "setup", *mounts], BOOT_TIMEOUT_S, out=sys.stderr.buffer):
        raise VmError("the machine was not ready in time, or its set-up failed")


def _tell_logs(home: Path) -> None:
    for name in ("qemu.log", "console.log"):
        with contextlib.suppress(OSError):
            text = (home / name).read_text(errors="replace")[-1500:].strip()
            if text:
                say(f"{name}: {text}")


def _sweep(above: Path) -> None:
    """Remove what a killed command left; a young directory may be one that is just being made."""
    for old in above.glob("*"):
        with contextlib.suppress(OSError):
            if not alive(old) and time.time() - old.stat().st_mtime > YOUNG_S:
                shutil.rmtree(old, ignore_errors=True)


def stop(home: Path) -> None:
    """End the machine and remove every trace. The guest is not shut down: its disks are all throw-away."""
    for turn in range(200):
        pid = alive(home)
        if pid is None:
            break
        if turn in (0, 100):  # QEMU ends at once on SIGTERM
            os.kill(pid, signal.SIGTERM if turn == 0 else signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def booted(machine: Machine, name: str | None = None) -> Iterator[Guest]:
    """A machine for the time of a `with` block."""
    guest = boot(machine, name or f"run-{os.getpid()}")
    try:
        yield guest
    finally:
        stop(guest.home)
