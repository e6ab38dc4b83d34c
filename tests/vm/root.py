"""The Debian root image: made once from this machine's own apt sources, then shared by all machines.

Invariant: what goes into it is in its name, so a change here makes another image, and no old one is used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.vm.host import VmError, make_image, need, say, sh

PORTS = 4
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "busybox-static", "e2fsprogs", "procps", "iproute2"),
    *("iputils-ping", "nftables", "ethtool", "python3", "python3-venv", "python3-pip", "stress-ng", "iperf3"),
    *("numactl", "bpftool", "strace"),
)
SPARE_MIB = 3072
AGENT = "/usr/local/lib/nodeagent-vm/agent.py"
# Units that an emulated, short-lived machine does without: each costs up to a second at boot.
MASKED = (
    *("getty.target", "remote-fs.target", "cryptsetup.target", "modprobe@.service", "systemd-logind.service"),
    *("systemd-pstore.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount"),
    *("systemd-user-sessions.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
    *("systemd-random-seed.service", "systemd-journal-flush.service", "systemd-remount-fs.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount"),
    *("sys-fs-fuse-connections.mount", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-clean.timer"),
    *("systemd-initctl.socket", "systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("kmod-static-nodes.service", "systemd-machine-id-commit.service"),
)
AGENT_UNIT = f"""[Unit]
Description=runs the commands of the host
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Slice=vmexec.slice
Delegate=yes
KillMode=mixed
TimeoutStopSec=2
Restart=on-failure
ExecStart=/usr/bin/python3 -S -E {AGENT} {PORTS}
"""
# Only what tests use is cold-plugged; the rest takes an emulated CPU 10 s.
COLD_PLUG = """[Service]
ExecStart=
ExecStart=udevadm trigger --type=subsystems --action=add
ExecStart=udevadm trigger --action=add -s block -s net -s mem -s misc
"""
SYSTEM = "etc/systemd/system"


def mac(kind: str, number: int) -> str:
    """The address by which the guest knows a `nic` or its `peer`."""
    return f"52:54:00:77:{int(kind == 'peer'):02x}:{number:02x}"


def guest_files() -> dict[str, str]:
    """What the image has beside its packages: path -> text."""
    links = {
        f"etc/systemd/network/10-{kind}{number}.link": (
            f"[Match]\nMACAddress={mac(kind, number)}\n[Link]\nName={kind}{number}\n"
        )
        for kind in ("nic", "peer")
        for number in range(8)
    }
    return links | {
        AGENT.lstrip("/"): Path(__file__).with_name("inside").joinpath("agent.py").read_text(),
        f"{SYSTEM}/vm-exec.service": AGENT_UNIT,
        f"{SYSTEM}/systemd-udev-trigger.service.d/nodeagent-vm.conf": COLD_PLUG,
        "etc/systemd/journald.conf.d/nodeagent-vm.conf": "[Journal]\nStorage=volatile\n",
        "etc/hostname": "nodeagent-vm\n",
        "etc/hosts": "127.0.0.1 localhost nodeagent-vm\n::1 localhost\n",
        "etc/fstab": "",
        "etc/resolv.conf": "",
        "etc/machine-id": "0" * 31 + "1\n",
        "etc/.updated": "",  # these two: no "update needed" services at boot
        "var/.updated": "",
    }


def build_root(cache: Path, packages: Iterable[str], image: Path) -> None:
    """Make the image; VmError when apt or mmdebstrap cannot. Needs root: that mode is the fastest."""
    need("mmdebstrap", "mke2fs", "apt-get")
    if os.geteuid():
        raise VmError("building the root image needs root (running machines does not)")
    wanted = sorted({*PACKAGES, *packages})
    say(f"building {image.name}: {len(wanted)} packages and what they need, about a minute ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as work:
        root, made = Path(work, "root"), Path(work, "image")
        _debootstrap(root, wanted)
        for name, text in guest_files().items():
            _put(root / name, text)
        _only_our_units(root)
        (root / "usr/lib/modules").mkdir(exist_ok=True)  # the kernel's own image is mounted here
        shutil.copy(root / "bin/busybox", cache / "busybox")
        make_image(root, made, SPARE_MIB)
        made.rename(image)


def _debootstrap(root: Path, packages: list[str]) -> None:
    sources = _sources()
    keyrings = [path for path in ("/etc/apt/trusted.gpg.d", "/usr/share/keyrings") if Path(path).is_dir()]
    dumped = sh("apt-config", "dump").splitlines()
    options = [line for line in dumped if re.match(r"Acquire::.*(Proxy|Verify)", line)]
    sh(
        *(
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            "--format=directory",
            f"--include={','.join(packages)}",
        ),
        *(f"--keyring={path}" for path in keyrings),
        *(f"--aptopt={line}" for line in options),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")),
        *(sources[0].split()[2], str(root), *sources),
    )


def _sources() -> list[str]:
    """The Debian lines of this machine's apt sources."""
    line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    found = sh(
        "apt-get", "indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"
    ).splitlines()
    if not found:
        raise VmError("apt knows no Debian source here. Run 'apt-get update', or check the apt sources")
    return list(dict.fromkeys(found))


def _only_our_units(root: Path) -> None:
    """No service starts by itself but the agent; no generator runs; what only costs time is masked."""
    system = root / SYSTEM
    for link in system.glob("*.wants/*"):
        link.unlink()
    (system / "sysinit.target.wants").mkdir(exist_ok=True)
    _link(system / "sysinit.target.wants/vm-exec.service", "../vm-exec.service")
    _link(system / "default.target", "/usr/lib/systemd/system/multi-user.target")
    generators = (root / "usr/lib/systemd/system-generators").iterdir()
    (system.parent / "system-generators").mkdir(exist_ok=True)
    masked = [system / unit for unit in MASKED]
    masked += [system.parent / "system-generators" / generator.name for generator in generators]
    for link in masked:
        _link(link, "/dev/null")


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
