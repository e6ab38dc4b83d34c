"""What a pod requests altogether, as the scheduler counts it.

    max(containers + sidecars, each init container + the sidecars before it), or what the pod as a whole asks
    (spec.resources), and the overhead of its runtime class on top

Kubernetes pkg/api/v1/resource PodRequests; a request that is not given is the limit, as the API server
defaults it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.pods.document import ContainerSpec, PodSpecDocument, Resources
from nodeagent.pods.quantity import LARGEST, quantity


def requested(spec: PodSpecDocument, resource: str) -> float | None:
    """The pod's request of "cpu", "memory" or an extended resource; None when it asks for none."""
    whole = _amount(spec.resources, resource)
    if whole is None:
        whole = _containers(spec, resource)
    overhead = quantity((spec.overhead or {}).get(resource) or 0) or 0.0
    total = (whole or 0.0) + overhead
    return total if 0.0 < total < LARGEST else None


def first_requested(spec: PodSpecDocument, resources: Sequence[str]) -> float | None:
    """Of the first of these resources that the pod asks for."""
    return next((found for name in resources if (found := requested(spec, name)) is not None), None)


def _containers(spec: PodSpecDocument, resource: str) -> float:
    running = sum(_of(container, resource) for container in spec.containers or ())
    sidecars = peak = 0.0
    for container in spec.init_containers or ():
        if container.restart_policy == "Always":
            sidecars += _of(container, resource)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + _of(container, resource))
    return max(running + sidecars, peak)


def _of(container: ContainerSpec, resource: str) -> float:
    return _amount(container.resources, resource) or 0.0


def _amount(resources: Resources | None, resource: str) -> float | None:
    if resources is None:
        return None
    given = (resources.requests or {}).get(resource, (resources.limits or {}).get(resource))
    return None if given is None else quantity(given)
