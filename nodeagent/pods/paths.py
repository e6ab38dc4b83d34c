"""What one cgroup is by its path alone: the layouts of exec, kubelet, YARN, Docker and systemd.

    nodeagent/batch/NAME                                                        exec
    [...]kubepods/{,burstable/,besteffort/}podUID/ID                            kubelet, cgroupfs driver
    [P-]kubepods.slice/[P-]kubepods-QOS.slice/[P-]kubepods-QOS-podUID.slice/RUNTIME-ID.scope    systemd driver
    [...]hadoop-yarn/container_e17_1410901177871_0001_01_000005                 YARN, LinuxContainerExecutor
    docker/ID                                                                   Docker, cgroupfs driver
    system.slice/nginx.service  system.slice/docker-ID.scope  batch.slice       systemd

Invariant: pure, and no more than a constant number of patterns is tried on a path.
"""

from __future__ import annotations

import re

from msgspec import Struct

from nodeagent.model.pod import OWN_ROOT, OWN_TIER, Qos

_NAME_LENGTH = 63
_HEX_LENGTH = 12  # as docker and crictl show ids

_EXEC = re.compile(rf"{OWN_ROOT}/(ls|mid|batch)/([^/]+)")
_KUBELET = re.compile(
    r"(?:.*/)?"
    r"(?:kubepods/(?:(?P<qos>burstable|besteffort)/)?pod(?P<uid>[^/]+)"
    r"|(?:[^/]+-)?kubepods\.slice/(?:[^/]+-kubepods|kubepods)"
    r"(?:-(?P<slice_qos>burstable|besteffort)\.slice/(?:[^/]+-)?kubepods-(?P=slice_qos))?"
    r"-pod(?P<slice_uid>[^/]+)\.slice)"
)
_KUBELET_INNER = re.compile(r"(?:[^/]+-)?kubepods(?:-burstable|-besteffort)?\.slice")
_BESTEFFORT = re.compile(
    r"(?:.*/)?(?:kubepods/besteffort|(?:[^/]+-)?kubepods\.slice/(?:[^/]+-)?kubepods-besteffort\.slice)"
)
_YARN = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_\d+")
_DOCKER = re.compile(r"(?:.*/)?docker/([0-9a-f]{64})")
_RUNTIME = re.compile(r"^(?:cri-containerd|docker|crio|libpod|pouch)-|\.scope$")
_HEX_ID = re.compile(r"(?<![0-9a-f])([0-9a-f]{12})[0-9a-f]{52}(?![0-9a-f])")
_FULL_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_UNITS = (".service", ".scope", ".slice", ".mount", ".socket", ".swap")
_KUBELET_QOS = {None: Qos.LS, "burstable": Qos.MID, "besteffort": Qos.BATCH}


class Kind(Struct, frozen=True, gc=False):
    """A pod by its path: `weak` ones are pods only where nothing more telling lies below them."""

    source: str
    qos: Qos
    uid: str
    name: str
    weak: bool = False


def kind_of(path: str, name: str) -> Kind | None:
    """The pod that the cgroup at `path`, whose last component is `name`, is by itself; None for none."""
    if "kubepods" in path and (match := _KUBELET.fullmatch(path)):
        uid = match["uid"] or match["slice_uid"].replace("_", "-")
        return Kind("kubelet", _KUBELET_QOS[match["qos"] or match["slice_qos"]], uid, f"pod-{uid[:8]}")
    if name.startswith("container_") and _YARN.fullmatch(name):
        return Kind("yarn", Qos.BATCH, path, name)
    if path.startswith(OWN_ROOT + "/") and (match := _EXEC.fullmatch(path)):
        return Kind("exec", Qos(match[1]), path, match[2])
    if len(name) == 64 and (match := _DOCKER.fullmatch(path)):
        return Kind("docker", Qos.MID, path, f"docker-{name[:_HEX_LENGTH]}")
    return _unit(path, name)


def is_tier(path: str, name: str) -> bool:
    """True for a cgroup made to hold Batch pods and nothing else."""
    if name.endswith((".service", ".scope")):
        return False
    return path == OWN_TIER or _is_yarn_tier(name) or bool(_BESTEFFORT.fullmatch(path))


def is_unit(name: str) -> bool:
    """True for the cgroup of a systemd unit of any type."""
    return name.endswith(_UNITS)


def container_name(name: str) -> str | None:
    """What to call a container's cgroup: without its runtime's prefix; None for CRI-O's monitors."""
    if name.startswith("crio-conmon-"):
        return None
    return shown(_RUNTIME.sub("", name))


def container_id(name: str) -> str:
    """The runtime's 64-digit id in the name of a container's cgroup; "" where there is none."""
    match = None if len(name) < 64 else _FULL_ID.search(name)
    return match[0] if match else ""


def shown(name: str) -> str:
    """`name` fit for people: one line, ids shortened as docker does, at most 63 characters."""
    short = _HEX_ID.sub(r"\1", name)
    if not short.isprintable():
        short = "".join(char if char.isprintable() else "?" for char in short)
    if len(short) <= _NAME_LENGTH:
        return short
    return f"{short[:40]}..{short[-(_NAME_LENGTH - 42) :]}"


def _unit(path: str, name: str) -> Kind | None:
    if name.endswith(".slice"):
        return None if _KUBELET_INNER.fullmatch(name) else Kind("systemd", Qos.MID, path, name, weak=True)
    if name.endswith(".service") or (name.endswith(".scope") and name != "init.scope"):
        return Kind("systemd", Qos.MID, path, name.removesuffix(".scope"), weak=name.endswith(".service"))
    return None


def _is_yarn_tier(name: str) -> bool:
    return name in ("hadoop", "yarn") or "hadoop-yarn" in name
