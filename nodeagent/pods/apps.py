"""What annotations of a pod say of its application, and where the pod is to be found: pure.

Invariant: nothing that a pod says of itself makes the agent ask anybody but that pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from nodeagent.model.app import (
    HISTOGRAM,
    METRICS,
    REQUESTS,
    SLO,
    AppWish,
    allowed,
    parse_selector,
    parse_slo,
    parse_url,
)
from nodeagent.model.symptom import Slo

MAX_ADDRESSES = 8
MAX_TEXT = 512
OWN_LOOPBACK = (
    f"{METRICS} names loopback, which is the pod's own where the agent cannot be: let it listen on the pod's "
    "address and write http://:PORT/PATH"
)


def app_wish(
    annotations: Mapping[str, str], addresses: tuple[str, ...], wrong: list[str], *, host_network: bool
) -> AppWish:
    """What was understood of them; `wrong` gets a line for each one that was not."""
    own = tuple(address for address in addresses if _is_address(address))[:MAX_ADDRESSES]
    found = AppWish(
        metrics=_url(annotations, own, wrong, host_network=host_network),
        latency_histogram=_selector(annotations, HISTOGRAM, wrong),
        requests_counter=_selector(annotations, REQUESTS, wrong),
        slo=_slo(annotations, wrong),
        addresses=own,
        host_network=host_network,
    )
    if found.metrics and not (found.latency_histogram or found.requests_counter):
        wrong.append(f"{METRICS} needs {HISTOGRAM} or {REQUESTS}: what of it tells latency and requests")
    return found


def _url(
    annotations: Mapping[str, str], own: tuple[str, ...], wrong: list[str], *, host_network: bool
) -> str:
    text = _parsed(annotations, METRICS, parse_url, wrong)
    if not text:
        return ""
    host = parse_url(text).host
    if not host or allowed(host, own, loopback=host_network):
        return text
    if allowed(host, (), loopback=True):
        wrong.append(OWN_LOOPBACK)
    else:
        wrong.append(f"{METRICS} = {text[:40]!a} is no address of this pod; write http://:PORT/PATH")
    return ""


def _selector(annotations: Mapping[str, str], key: str, wrong: list[str]) -> str:
    return _parsed(annotations, key, parse_selector, wrong)


def _slo(annotations: Mapping[str, str], wrong: list[str]) -> Slo | None:
    text = _parsed(annotations, SLO, parse_slo, wrong)
    return parse_slo(text) if text else None


def _parsed(
    annotations: Mapping[str, str], key: str, parse: Callable[[str], object], wrong: list[str]
) -> str:
    """The text of the annotation, once it is known to be right; else ""."""
    text = annotations.get(key, "")
    try:
        if len(text) > MAX_TEXT:
            raise ValueError(f"has more than {MAX_TEXT} characters")
        if text:
            parse(text)
    except ValueError as error:
        wrong.append(f"{key} {error}")
        return ""
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
