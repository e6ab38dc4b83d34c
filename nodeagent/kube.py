"""The one thing that is asked of the Kubernetes API server: a patch of the status of this node.

Invariant: every way in which it can fail is one Failed, whose text is the same each time it fails that way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx2 as httpx
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.resources.core_v1 import NodeStatus
from lightkube.types import PatchType

from nodeagent.model.errors import Failed

DENIED = "the service account needs `patch` on nodes/status: publish.enabled of the chart grants it"


def status_patcher(node: str, *, timeout_s: float) -> Callable[[Mapping[str, object]], None]:
    """What sends merge patches of `node`'s status, with the credentials of now; Failed without any."""
    try:
        config = KubeConfig.from_env()
        client = Client(config=config, timeout=httpx.Timeout(timeout_s), trust_env=False)
    except Exception as error:  # for a garbled kubeconfig lightkube raises whatever comes
        why = error if isinstance(error, ConfigError | OSError) else f"not a kubeconfig: {error!r}"
        raise Failed(f"no way to an API server: {why}", "run in a pod, or set KUBECONFIG") from error

    def send(body: Mapping[str, object]) -> None:
        try:
            client.patch(NodeStatus, node, dict(body), patch_type=PatchType.MERGE)
        except ApiError as error:
            code = error.status.code
            hint = DENIED if code == 403 else ""
            raise Failed(f"the API server refused node {node}: {code} {error.status.reason}", hint) from error
        except Exception as error:  # and for an answer that is none of an API server's
            raise Failed(f"no answer of the API server: {type(error).__name__}: {error}") from error

    return send
