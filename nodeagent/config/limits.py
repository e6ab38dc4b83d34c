"""What a single key cannot tell: values that must fit each other, addresses, paths, globs.

Invariant: every rule names the keys that disagree, their values and where the first one was set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from nodeagent.config.apps import app_complaints
from nodeagent.config.controller import controller
from nodeagent.config.kubernetes import kubernetes_complaints
from nodeagent.config.publish import published
from nodeagent.config.schema import NIC, POD
from nodeagent.config.transport import access
from nodeagent.model.app import AppRule
from nodeagent.model.errors import Misconfigured
from nodeagent.model.glob import glob_regex
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.nic_policy import NicRule
from nodeagent.model.pod import NumaWish, PodRule, Qos, is_device_name
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Settings

LEAST_LINK_BPS = 1_000_000
LEAST_LOOK_S = 0.02  # oftener, a look costs more than what it may save
MAX_UNIX_PATH = 107  # unix(7): sun_path is 108 bytes with its NUL

Complaint = tuple[str, str]  # key, what is wrong with it


def check_together(
    settings: Settings,
    policy: Policy,
    rules: tuple[PodRule, ...],
    apps: tuple[AppRule, ...],
    origins: Mapping[str, str],
) -> None:
    """Misconfigured for the first rule that is broken."""
    for key, wrong in (
        *_times(settings, policy),
        *_amounts(settings, policy),
        *_paths(settings),
        *_addresses(settings),
        *access(settings.grpc),
        *controller(settings.controller),
        *published(settings.publish),
        *_globs(policy, rules),
        *_bindings(rules),
        *_shares(policy.nics),
        *kubernetes_complaints(settings.kubernetes),
        *app_complaints(settings.app_signals, apps),
    ):
        raise Misconfigured(f"{origins[key]}: {key} {wrong}")


def _times(settings: Settings, policy: Policy) -> Iterator[Complaint]:
    agent, drift = settings.agent, policy.drift
    for key, value in (("slow_tick_s", agent.slow_tick_s), ("scan_s", agent.scan_s)):
        if value < agent.tick_s:
            yield f"agent.{key}", f"= {value:g} is shorter than agent.tick_s = {agent.tick_s:g}"
    if 0.0 < agent.fast_lane_s < LEAST_LOOK_S:
        yield "agent.fast_lane_s", f"= {agent.fast_lane_s:g} must be 0 (off) or at least {LEAST_LOOK_S:g}"
    stale, slowest = policy.capacity.stale_after_s, max(agent.tick_s, agent.slow_tick_s)
    if stale <= slowest:
        yield (
            "capacity.stale_after_s",
            f"= {stale:g} must be more than agent.tick_s and agent.slow_tick_s: {slowest:g}",
        )
    yield from _leases(policy.interference, agent.tick_s)
    if drift.backoff_max_s < drift.backoff_s:
        yield (
            "drift.backoff_max_s",
            f"= {drift.backoff_max_s:g} is shorter than drift.backoff_s = {drift.backoff_s:g}",
        )


def _leases(interference: InterferencePolicy, tick_s: float) -> Iterator[Complaint]:
    if interference.lease_s < 2 * tick_s:
        wrong = f"= {interference.lease_s:g} must be at least twice agent.tick_s = {tick_s:g}: ticks renew it"
        yield "interference.lease_s", wrong
    if interference.relax_max_s < interference.relax_after_s:
        least = f"interference.relax_after_s = {interference.relax_after_s:g}"
        yield "interference.relax_max_s", f"= {interference.relax_max_s:g} is shorter than {least}"


def _amounts(settings: Settings, policy: Policy) -> Iterator[Complaint]:
    journal, cpu = settings.journal, policy.cpu
    if 2 * journal.segment_bytes > journal.max_bytes:
        yield (
            "journal.segment_bytes",
            f"= {journal.segment_bytes} must be at most half of journal.max_bytes = {journal.max_bytes}",
        )
    if cpu.pod_floor_cores > cpu.floor_cores:
        yield (
            "cpu.pod_floor_cores",
            f"= {cpu.pod_floor_cores:g} is more than cpu.floor_cores = {cpu.floor_cores:g}",
        )


def _paths(settings: Settings) -> Iterator[Complaint]:
    agent = settings.agent
    for key in ("host_root", "state_dir", "run_dir"):
        path = getattr(agent, key)
        if not path.startswith("/") or ".." in path.split("/"):
            yield f"agent.{key}", f'takes an absolute path without "..", found "{path}"'
    kubelet = agent.kubelet_dir
    if kubelet and (not kubelet.startswith("/") or ".." in kubelet.split("/")):
        yield "agent.kubelet_dir", f'takes an absolute path without "..", or "", found "{kubelet}"'
    if agent.state_dir.rstrip("/") in ("", agent.run_dir.rstrip("/")):
        yield "agent.state_dir", f'must be a directory of its own, found "{agent.state_dir}"'


def _addresses(settings: Settings) -> Iterator[Complaint]:
    address = settings.grpc.address
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or path.endswith("/"):
            yield "grpc.address", f'takes unix:/absolute/path, found "{address}"'
        elif len(path.encode()) > MAX_UNIX_PATH:
            yield "grpc.address", f"is longer than the {MAX_UNIX_PATH} bytes of a unix socket's path"
    elif address:
        host = _host(address)
        if host is None:
            yield "grpc.address", f'takes unix:/path, 127.0.0.1:PORT, [::1]:PORT or "", found "{address}"'
        elif not _is_loopback(host):
            yield "grpc.address", f'is plain TCP, so it takes a loopback address only, found "{address}"'
    outside = settings.grpc.tls_address
    if outside and (outside.startswith("localhost") or _host(outside) is None):
        yield "grpc.tls_address", f'takes ADDRESS:PORT, [IPv6]:PORT or "", found "{outside}"'
    if settings.http.address and _host(settings.http.address) is None:
        yield "http.address", f'takes ADDRESS:PORT, [IPv6]:PORT or "", found "{settings.http.address}"'


def _host(address: str) -> str | None:
    """The IP address (or "localhost") of "host:port", or None when it is not of that form."""
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        return None
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host == "localhost":
        return host
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        return None
    return bare if (version == 6) == (bare != host) else None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _bindings(rules: tuple[PodRule, ...]) -> Iterator[Complaint]:
    for number, rule in enumerate(rules):
        key, bound = f"{POD}[{number}]", rule.numa is not NumaWish.NONE
        if rule.hands_off and (bound or rule.qos is Qos.BATCH):
            yield (
                f"{key}.hands_off",
                'leaves a pod as it is, so it goes neither with numa nor with qos = "batch"',
            )
        if bound and rule.qos is not Qos.LS:
            yield f"{key}.numa", f'= "{rule.numa}" is for qos = "ls", found qos = "{rule.qos}"'
        elif rule.numa is NumaWish.BIND and rule.cpus is None:
            yield f"{key}.numa", '= "bind" needs cpus, the number of cores to bind to'
        elif rule.near and not bound:
            yield f"{key}.near", 'says where to bind, which numa = "bind" or "exclusive" asks for'
        elif rule.near and not is_device_name(rule.near):
            yield f"{key}.near", f'takes the name of a NIC or a PCI address, found "{rule.near}"'


def _shares(rules: tuple[NicRule, ...]) -> Iterator[Complaint]:
    for number, rule in enumerate(rules):
        key = f"{NIC}[{number}]"
        named = (
            ("ls_ratio", rule.ls_ratio),
            ("mid_ratio", rule.mid_ratio),
            ("batch_ratio", rule.batch_ratio),
        )
        given = {name: share for name, share in named if share is not None}
        if sum(given.values()) > 1.0 + 1e-9:
            yield (
                f"{key}.{next(iter(given))}",
                f"and the other guarantees are {sum(given.values()):g}, above 1",
            )
        if rule.batch_pressed_ratio > rule.batch_ceiling_ratio:
            pressed, idle = rule.batch_pressed_ratio, rule.batch_ceiling_ratio
            # which of the two was given is not known here; `match` always is
            yield (
                f"{key}.match",
                f"has batch_pressed_ratio = {pressed:g} above batch_ceiling_ratio = {idle:g}",
            )

        if rule.batch_ratio is not None and rule.batch_ratio > rule.batch_ceiling_ratio:
            most = rule.batch_ceiling_ratio
            yield f"{key}.batch_ratio", f"= {rule.batch_ratio:g} is more than batch_ceiling_ratio = {most:g}"
        if 0 < rule.link_bps < LEAST_LINK_BPS:
            yield (
                f"{key}.link_bps",
                f"is in bits per second, {rule.link_bps} would cut the node off: at least {LEAST_LINK_BPS}",
            )
        if rule.match in (before.match for before in rules[:number]):
            yield f"{key}.match", f'= "{rule.match}" is that of an entry before, which has these NICs'


def _globs(policy: Policy, rules: tuple[PodRule, ...]) -> Iterator[Complaint]:
    globs = [("scope", glob) for glob in policy.scope]
    globs += [(f"{POD}[{number}].match", rule.match) for number, rule in enumerate(rules)]
    for key, glob in globs:
        if not glob.strip("/"):
            yield key, "has an empty glob"
        elif ".." in glob.split("/"):
            yield key, f'takes globs of cgroup paths, which have no "..", found "{glob}"'
        elif len(glob) > 512:
            yield key, f"has a glob longer than 512 characters: {glob[:40]}..."
        else:
            glob_regex(glob)
