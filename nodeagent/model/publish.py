"""How the offer is told to Kubernetes: the section [publish]."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class PublishSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The offer as extended resources of the Kubernetes node, for its scheduler."""

    enabled: Annotated[
        bool,
        Meta(description="patch the node's status; needs the extra `kubernetes` and `patch nodes/status`"),
    ] = False
    node_name: Annotated[
        str, Meta(max_length=253, description='the node in Kubernetes; "" = $NODE_NAME, else the hostname')
    ] = ""
    cpu_name: Annotated[
        str, Meta(min_length=3, max_length=317, description="extended resource in milli-cores")
    ] = "nodeagent.io/batch-cpu"
    memory_name: Annotated[
        str, Meta(min_length=3, max_length=317, description="extended resource in bytes")
    ] = "nodeagent.io/batch-memory"
    change_ratio: Annotated[
        float, Meta(gt=0.0, le=1.0, description="tell at once what differs by more than this share")
    ] = 0.1
    every_s: Annotated[
        float, Meta(ge=10.0, le=3600.0, description="tell at least this often; holds for twice as long")
    ] = 300.0
