"""Kubernetes' pods over time: how old the list is, what of it holds, and which cgroups it was said of.

    WAITING -> FRESH <-> STALE -> EXPIRED
    NEVER    nobody has answered, and the configuration does not say that somebody will: the paths alone tell

Invariant: a list that gets old or ends loosens nothing; see `Told`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from nodeagent.model.kubernetes import Enabled, KubernetesSettings, ListState, PodList, PodTold
from nodeagent.model.pod import Member
from nodeagent.pods.kubelet import kubelet_url, unverified
from nodeagent.pods.lister import Listing, PodLister, cri_socket
from nodeagent.pods.told import Told

MISSED = 3.0  # so many times poll_s without an answer make a list stale
MAX_WRONG = 100


class KubernetesPods:
    """What is told of pods, for the loop's thread; `close` it."""

    def __init__(self, settings: KubernetesSettings, lister: PodLister, risk: str = "") -> None:
        self.risk = risk  # why others could pass for the kubelet; "" = they cannot
        self._settings = settings
        self._lister = lister
        self._known: dict[tuple[str, int], PodTold] = {}
        self._told = Told(cautious=True)
        self._used: tuple[tuple[PodTold, ...], ListState] | None = None
        self._complaints: tuple[tuple[PodTold, ...], tuple[tuple[str, str], ...]] = (), ()
        self._unknown: frozenset[tuple[str, int]] = frozenset()

    def changed(self, at: float) -> bool:
        """True when cgroups are to be joined anew: another list, or the old one has ended."""
        listing = self._lister.latest()
        used = self._used
        return used is None or listing.pods is not used[0] or self._state(listing, at) is not used[1]

    def told(self, at: float) -> Told:
        """What holds at the monotonic time `at`."""
        listing = self._lister.latest()
        state = self._state(listing, at)
        pods = listing.pods if state in (ListState.FRESH, ListState.STALE) else ()
        self._used = listing.pods, state
        self._told = Told(pods, self._known, cautious=state is not ListState.NEVER)
        return self._told

    def learn(self, members: Iterable[Member]) -> None:
        """These pods live: remember what is told of them, forget the others, and ask when one is new."""
        known: dict[tuple[str, int], PodTold] = {}
        unknown = set()
        expects = False
        for spec in (member.spec for member in members):
            of_kubelet = "kubepods" in spec.cgroup and spec.source in ("kubelet", "rule")
            expects = expects or of_kubelet
            key = spec.cgroup, spec.inode
            pod = self._told.listed(spec.uid) or self._known.get(key)
            if pod is not None:
                known[key] = pod
            elif of_kubelet:
                unknown.add(key)
        self._known = known
        self._lister.expects_pods = expects
        if unknown - self._unknown:
            self._lister.poke()
        self._unknown = frozenset(unknown)

    def seen(self, at: float) -> PodList:
        """What the snapshot at `at` says of the list."""
        listing = self._lister.latest()
        state = self._state(listing, at)
        if listing.pods is not self._complaints[0]:
            wrong = [(pod.full_name, text) for pod in listing.pods for text in pod.wrong]
            self._complaints = listing.pods, tuple(wrong[:MAX_WRONG])
        count = 0 if state is ListState.EXPIRED else len(listing.pods)
        return PodList(listing.source, state, listing.at, count, listing.error, self._complaints[1])

    def first(self) -> None:
        """Wait for the first answer, at most as long as one may take from each source."""
        self._lister.first(2.0 * self._settings.timeout_s + 1.0)

    def close(self) -> None:
        """End the asking."""
        self._lister.close()

    def _state(self, listing: Listing, at: float) -> ListState:
        if listing.at is None:
            return ListState.NEVER if listing.asked and not self._settings.awaited else ListState.WAITING
        age_s = at - listing.at
        if age_s > self._settings.stale_after_s:
            return ListState.EXPIRED
        patience_s = MISSED * self._settings.poll_s + self._settings.timeout_s
        return ListState.FRESH if age_s <= patience_s else ListState.STALE


def kubernetes_pods(
    settings: KubernetesSettings, host_root: str, kubelet_dir: str, env: Mapping[str, str]
) -> KubernetesPods | None:
    """Whoever is to be asked on this node; None where nobody is."""
    url, socket = asked(settings, host_root, kubelet_dir, env)
    if not url and not socket:
        return None
    return KubernetesPods(settings, PodLister(settings, url, socket), unverified(url, settings))


def asked(
    settings: KubernetesSettings, host_root: str, kubelet_dir: str, env: Mapping[str, str]
) -> tuple[str, str]:
    """(URL of the kubelet, socket of the runtime), each "" when it is not to be asked.

    `kubelet_dir` is the kubelet's directory as seen from here, "" for none: its presence, or a token's, tells
    a node of Kubernetes. A runtime that is named is asked in any case.
    """
    if settings.enabled is Enabled.OFF:
        return "", ""
    here = settings.enabled is Enabled.ON or os.path.exists(settings.token_file)
    here = here or bool(settings.kubelet_url) or bool(kubelet_dir and os.path.isdir(kubelet_dir))
    named = settings.cri_endpoint not in ("", "auto")
    socket = cri_socket(settings.cri_endpoint, host_root) if here or named else ""
    return kubelet_url(settings, env) if here else "", socket
