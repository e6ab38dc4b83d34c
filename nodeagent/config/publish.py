"""What must hold of [publish] beyond single keys: names of resources that Kubernetes takes.

Invariant: a complaint names the key, what is wrong with it and what it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodeagent.model.publish import PublishSettings

# A qualified name of Kubernetes: a DNS subdomain ("requests." is for quotas), and at most 63 characters.
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
RESOURCE = re.compile(
    rf"(?!requests\.)(?=[^/]{{1,253}}/){_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([\w.-]{{0,61}}[A-Za-z0-9])?",
    re.ASCII,
)


def published(publish: PublishSettings) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it), for each key that is."""
    for key in ("cpu_name", "memory_name"):
        name = getattr(publish, key)
        if not RESOURCE.fullmatch(name):
            yield f"publish.{key}", f'takes DOMAIN/NAME, such as "nodeagent.io/batch-cpu", found "{name}"'
    if publish.cpu_name == publish.memory_name:
        yield "publish.memory_name", f'= "{publish.memory_name}" is that of publish.cpu_name'
