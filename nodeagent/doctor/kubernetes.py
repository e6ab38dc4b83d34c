"""Kubernetes: whether its pods are told, by whom, how old the token is, and what of their labels is wrong."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.kernel.mounts import under
from nodeagent.kernel.tree import walk
from nodeagent.model.kubernetes import KubernetesSettings, ListState
from nodeagent.pods.kubelet import unverified
from nodeagent.pods.kubernetes import asked
from nodeagent.pods.lister import CRI, Listing, PodLister
from nodeagent.report.pod_list_events import HOLDS

NAME, RUNTIME, TOKEN = "kubelet pods", "container runtime", "kubelet token"
_ROOT = re.compile(r"(.*/)?(kubepods|([^/]+-)?kubepods\.slice)")
OLD_TOKEN_S = 3600.0  # the kubelet renews a projected one after 80 % of its hour
SHOWN = 5


def pod_list(host: Host) -> Iterator[Finding]:
    """Asks once, as the agent does."""
    settings, agent = host.config.settings.kubernetes, host.config.settings.agent
    directory = under(host.root, agent.kubelet_dir) if agent.kubelet_dir else ""
    url, socket = asked(settings, host.root, directory, os.environ)
    if not url and not socket:
        found = "not asked: no service account token and no kubelet here, or kubernetes.enabled is off"
        yield Finding(NAME, Status.INFO, found)
        return
    if url:
        yield from _transport(url, settings)
        yield _answer(NAME, url, PodLister(settings, url, "").ask(), awaited=settings.awaited)
    if socket:
        yield _answer(RUNTIME, socket, PodLister(settings, "", socket).ask())
    else:
        yield Finding(RUNTIME, Status.INFO, "no socket of containerd or CRI-O: nobody else can be asked")


def _transport(url: str, settings: KubernetesSettings) -> Iterator[Finding]:
    if url.startswith("https:"):
        yield _token(settings.token_file)
    if risk := unverified(url, settings):
        yield Finding(
            NAME, Status.WARN, risk, "https, with kubernetes.ca_file and without insecure_skip_verify"
        )


def _token(path: str) -> Finding:
    try:
        age_s = time.time() - os.stat(path).st_mtime
    except OSError as error:
        fix = "kubernetes.token_file names the service account's token"
        return Finding(TOKEN, Status.WARN, f"{path}: {error.strerror}", fix)
    found = f"{path}, {max(0.0, age_s) / 60.0:.0f} minutes old"
    if age_s < OLD_TOKEN_S:
        return Finding(TOKEN, Status.OK, found)
    return Finding(
        TOKEN, Status.INFO, found, "a projected token is renewed each hour; one in a secret is not"
    )


def _answer(name: str, where: str, listing: Listing, *, awaited: bool = False) -> Finding:
    if listing.at is None:
        fix = HOLDS[ListState.WAITING if awaited else ListState.NEVER]
        return Finding(name, Status.INFO if name == RUNTIME else Status.WARN, listing.error, fix)
    count = len(listing.pods)
    found = f"{where} lists {count} pod{'s'[: count != 1]}"
    if listing.source == CRI:
        containers = [each for pod in listing.pods for each in pod.containers]
        found += (
            f", {len(containers)} containers, {sum(each.pid is not None for each in containers)} processes"
        )
    wrong = [f"{pod.full_name}: {text}" for pod in listing.pods for text in pod.wrong]
    if wrong:
        more = f" (and {len(wrong) - SHOWN} more)" if len(wrong) > SHOWN else ""
        fix = "; ".join(wrong[:SHOWN]) + more
        return Finding(name, Status.WARN, f"{found}; not all labels are understood", fix)
    return Finding(name, Status.OK, found + (f"; {listing.error}" if listing.error else ""))


def cgroup_driver(host: Host) -> Iterator[Finding]:
    """By the name of the kubelet's cgroup, where there is one."""
    if host.cgroups is None:
        return
    drivers = {
        "systemd" if path.endswith(".slice") else "cgroupfs"
        for path in (directory.path for directory in walk(host.cgroups.walk_root))
        if _ROOT.fullmatch(path)
    }
    if drivers:
        found = f"{' and '.join(sorted(drivers))}; pods of both drivers are known"
        yield Finding("kubelet cgroups", Status.INFO, f"driver {found}")


KUBERNETES: tuple[Check, ...] = (pod_list, cgroup_driver)
