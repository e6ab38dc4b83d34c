"""The workload that a pod is one of, from its name alone: what its replicas share, they learn together.

    shop/web-7d4b9c6f5d-x2x7q     a Deployment's     -> shop/web
    shop/db-0                     a StatefulSet's    -> shop/db
    kube-system/proxy-8xg2f       a DaemonSet's      -> kube-system/proxy
    shop/report-28423680-4kz9b    a CronJob's        -> shop/report
    stress-ng-4711                `nodeagent exec`   -> stress-ng

The end of a generated name is of k8s.io/apimachinery/pkg/util/rand: five of these letters, without vowels, so
that no word comes out; a pod template's hash is made of decimal digits that are mapped to ten of them.
"""

from __future__ import annotations

import re
from functools import lru_cache

_GENERATED = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}$")
_TEMPLATE = re.compile(r"-(?:[bcdf456789]{6,10}|\d{1,10})$")
_ORDINAL = re.compile(r"-\d{1,10}$")


@lru_cache(maxsize=4096)
def workload(name: str) -> str:
    """The name of all pods that are made from the same; `name` itself where nothing was added to it."""
    if name.count("/") != 1:  # only Kubernetes generates letters
        return _ORDINAL.sub("", name) or name
    owner, generated = _GENERATED.subn("", name)
    stripped = (_TEMPLATE if generated else _ORDINAL).sub("", owner)
    return name if stripped.endswith("/") or not stripped else stripped
