"""What is asked of applications, by whom and where: [[apps]] entries, annotations of pods, SLOs. Pure.

    p99 <= 20ms                              an SLO: p50 to p999; us, ms or s
    http://127.0.0.1:9121/metrics            a URL: literal addresses only; an empty host is the pod's own
    http_request_seconds{path="/search"}     a selector: a metric's name, and labels that its series must have

Invariant: what is not understood is a ValueError that tells what would be.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from nodeagent.model.symptom import Slo

LEAST_REQUESTS = 30  # below it no quantile means anything
TAIL_REQUESTS = 3.0  # so many must lie above a quantile
LONGEST_S = 3600.0  # of a latency that may be promised or told
MAX_TEXT = 512
METRICS, HISTOGRAM = "nodeagent.io/metrics", "nodeagent.io/latency-histogram"
REQUESTS, SLO = "nodeagent.io/requests-counter", "nodeagent.io/slo"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SLO = re.compile(r"\s*p(\d{1,4})\s*(?:<=|≤)\s*(\d{1,9}(?:\.\d{1,9})?)\s*(us|ms|s)\s*", re.ASCII)
_URL = re.compile(r"http://(\[[0-9a-fA-F:.]+\]|[^/:\[\]@?#]*):(\d{1,5})(/[!-~]*)?", re.ASCII)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\[\\"n])*)"\s*(,|$)', re.ASCII)
_ESCAPE = re.compile(r'\\([\\"n])')


class Url(NamedTuple):
    """`host` is a literal address; "": the pod's own."""

    host: str
    port: int
    path: str


class Selector(NamedTuple):
    """Series of this name that have all these labels, and maybe others."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


class AppFigures(NamedTuple):
    """Since the start: scrapes by result ("ok", "error"), and StatsD lines that had no effect, by reason."""

    scrapes: Mapping[str, int] = {}
    dropped: Mapping[str, int] = {}


class AppRule(Struct, frozen=True, forbid_unknown_fields=True):
    """One [[apps]] entry: what the applications of the pods that match tell; the first match wins."""

    match: Annotated[
        str,
        Meta(min_length=1, max_length=MAX_TEXT, description="glob over cgroup path or pod name"),
    ]
    metrics: Annotated[
        str,
        Meta(
            max_length=MAX_TEXT,
            description="Prometheus endpoint: http://127.0.0.1:PORT/PATH, or http://:PORT/PATH on the pod's "
            "own address; literal loopback and pod addresses only",
        ),
    ] = ""
    latency_histogram: Annotated[
        str,
        Meta(max_length=MAX_TEXT, description='its latency: NAME or NAME{label="value"}; series are summed'),
    ] = ""
    requests_counter: Annotated[
        str, Meta(max_length=MAX_TEXT, description="its requests, likewise; default: the histogram's _count")
    ] = ""
    statsd: Annotated[
        str, Meta(max_length=128, description='StatsD names of this pod begin with this and a dot ("search")')
    ] = ""
    slo: Annotated[
        str, Meta(max_length=64, description='what it promises: "p99 <= 20ms" (p50 to p999; us, ms, s)')
    ] = ""
    period_s: Annotated[
        float, Meta(ge=0.5, le=15.0, description="time between two scrapes; after three without any: unknown")
    ] = 5.0


class AppSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """By which ways applications may tell of themselves."""

    annotations: Annotated[
        bool, Meta(description="scrape what annotations of Kubernetes pods name (nodeagent.io/metrics)")
    ] = True
    push: Annotated[
        bool,
        Meta(description="take what applications push over gRPC (AppSignals); each tells of its own pod"),
    ] = True
    timeout_s: Annotated[float, Meta(ge=0.05, le=10.0, description="longest that one scrape may take")] = 1.0
    max_bytes: Annotated[
        int, Meta(ge=4096, le=64 << 20, description="largest answer to a scrape; larger ones are refused")
    ] = 4 << 20
    statsd_socket: Annotated[
        str, Meta(max_length=107, description='path of a datagram socket for StatsD; "" = off')
    ] = ""
    statsd_udp: Annotated[
        str, Meta(max_length=64, description='the same by UDP, loopback only: 127.0.0.1:8125; "" = off')
    ] = ""
    statsd_lines_per_s: Annotated[
        int, Meta(ge=10, le=1_000_000, description="lines of StatsD that are looked at; others are dropped")
    ] = 10_000


class AppWish(Struct, frozen=True):
    """What Kubernetes tells of a pod's application: its annotations, and where the pod is to be found."""

    metrics: str = ""
    latency_histogram: str = ""
    requests_counter: str = ""
    slo: Slo | None = None
    addresses: tuple[str, ...] = ()
    host_network: bool = False


class Push(Struct, frozen=True):
    """What an application tells by itself of the `requests` that it answered in the last `window_s`.

    Either `latency_s`, (quantile, seconds), or a histogram, `counts` of buckets up to `bounds_s`, of which
    the last one is inf; or neither.
    """

    window_s: float
    requests: int
    latency_s: tuple[tuple[float, float], ...] = ()
    bounds_s: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    slo: Slo | None = None


def requests_needed(quantile: float) -> int:
    """So many requests make a quantile in (0, 1) known: 30, and 3 above it (p99: 300, p999: 3000)."""
    return max(LEAST_REQUESTS, math.ceil(round(TAIL_REQUESTS / (1.0 - quantile), 6)))


def parse_slo(text: str) -> Slo:
    """The SLO in "p99 <= 20ms"; ValueError."""
    match = _SLO.fullmatch(text)
    if match is None:
        raise ValueError(f'takes "p99 <= 20ms" (p50 to p999; us, ms or s), found {text[:60]!r}')
    digits, bound_s = match[1], float(match[2]) * UNITS[match[3]]
    quantile = int(digits) / 10 ** len(digits)
    if not 0.5 <= quantile <= 0.999 or len(digits) < 2:
        raise ValueError(f"takes a quantile from p50 to p999, found p{digits}")
    if not 0.0 < bound_s <= LONGEST_S:
        raise ValueError(f"takes a bound above 0 and up to {LONGEST_S:g}s, found {match[2]}{match[3]}")
    return Slo(quantile, bound_s)


def parse_url(text: str) -> Url:
    """Where to scrape; ValueError for whatever is not plain HTTP to a literal address and port."""
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError(f"takes http://ADDRESS:PORT/PATH or http://:PORT/PATH, found {text[:60]!r}")
    host, port = match[1].strip("[]"), int(match[2])
    if not 0 < port < 65536:
        raise ValueError(f"takes a port from 1 to 65535, found {port}")
    if host and _address(host) is None:
        raise ValueError(f"takes a literal address, as names are not resolved; found {host[:60]!r}")
    return Url(host, port, match[3] or "/")


def parse_selector(text: str) -> Selector:
    """The series in `NAME` or `NAME{label="value", ...}`; ValueError."""
    name, brace, rest = text.strip().partition("{")
    if not _NAME.fullmatch(name) or (brace and not rest.endswith("}")):
        raise ValueError(f'takes NAME or NAME{{label="value"}}, found {text[:60]!r}')
    return Selector(name, tuple(sorted(parse_labels(rest[:-1]).items())) if brace else ())


def parse_labels(text: str) -> dict[str, str]:
    """The labels in `a="b",c="d"` (Prometheus exposition formats); ValueError."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text) and not text[at:].isspace():
        match = _LABEL.match(text, at)
        if match is None or match[1] in found:
            raise ValueError(f'takes labels as a="b",c="d", found {text[:60]!r}')
        found[match[1]] = _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    return found


def allowed(host: str, own: tuple[str, ...], *, loopback: bool) -> bool:
    """Whether the literal address may be asked: it is one of the pod's `own`, or on loopback if that may."""
    address = _address(host)
    if address is None:
        return False
    return address in map(_address, own) or (loopback and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    scoped = isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found.ipv4_mapped)
    return None if scoped or found.is_unspecified or found.is_multicast else found
