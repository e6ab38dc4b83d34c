"""Who is asked what: the operator's [[apps]] entries, then the pod's annotations. Pure.

Invariant: only online pods are asked, and nobody at an address that is neither the pod's own nor, where the
operator or the pod's host network allows it, on loopback.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from nodeagent.apps.http import Place
from nodeagent.model.app import AppRule, AppWish, Selector, allowed, parse_selector, parse_slo, parse_url
from nodeagent.model.glob import glob_regex
from nodeagent.model.pod import Member, PodSpec
from nodeagent.model.symptom import Slo

Key = tuple[str, int]  # a pod: uid and inode
PERIOD_S = 5.0


class Target(Struct, frozen=True):
    """What is known of one pod's application. `place` None: not scraped, and `wrong` why, if it should be.

    `statsd` is the prefix of its names.
    """

    key: Key
    cgroup: str
    place: Place | None = None
    wrong: str = ""
    histogram: Selector | None = None
    counter: Selector | None = None
    slo: Slo | None = None
    period_s: float = PERIOD_S
    statsd: str = ""


def targets(members: Iterable[Member], rules: tuple[AppRule, ...], *, annotations: bool) -> dict[Key, Target]:
    """By pod; only those of which something is to be asked, or at least promised."""
    globs = [(glob_regex(rule.match), rule) for rule in rules]
    found: dict[Key, Target] = {}
    for member in members:
        spec, app = member.spec, member.app if annotations else _addresses(member.app)
        if not spec.online:
            continue
        rule = next((r for g, r in globs if g.fullmatch(spec.cgroup) or g.fullmatch(spec.name)), None)
        if rule is not None or app.metrics or app.slo is not None:
            found[spec.uid, spec.inode] = _target(spec, app, rule or AppRule(match="-"))
    return found


def _target(spec: PodSpec, app: AppWish, rule: AppRule) -> Target:
    url = rule.metrics or app.metrics
    place, wrong = _place(url, app, by_rule=bool(rule.metrics)) if url else (None, "")
    histogram = rule.latency_histogram or app.latency_histogram
    counter = rule.requests_counter or app.requests_counter
    if place is not None and not (histogram or counter):
        place, wrong = None, f"{url}: neither a latency histogram nor a requests counter of it is named"
    return Target(
        key=(spec.uid, spec.inode),
        cgroup=spec.cgroup,
        place=place,
        wrong=wrong,
        histogram=parse_selector(histogram) if histogram else None,
        counter=parse_selector(counter) if counter else None,
        slo=parse_slo(rule.slo) if rule.slo else app.slo,
        period_s=rule.period_s,
        statsd=rule.statsd,
    )


def _place(url: str, app: AppWish, *, by_rule: bool) -> tuple[Place | None, str]:
    host, port, path = parse_url(url)
    if not host:
        if not app.addresses:
            return (
                None,
                f"{url}: the pod's address is not known; name one, such as http://127.0.0.1:{port}{path}",
            )
        return Place(app.addresses[0], port, path), ""
    if not allowed(host, app.addresses, loopback=by_rule or app.host_network):
        return None, f"{url}: is neither on loopback nor an address of this pod"
    return Place(host, port, path), ""


def _addresses(app: AppWish) -> AppWish:
    """Without what the annotations say."""
    return AppWish(addresses=app.addresses, host_network=app.host_network)
