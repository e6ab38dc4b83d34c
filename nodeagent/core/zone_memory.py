"""Where memory is in use: online and system bytes of each NUMA node.

A pod whose pages by node are known counts on each node with that share of its working set. What is left of
a node's use belongs to the others and to the system: of these, Batch's and the system's shares follow what is
left on each node, and the rest counts as online as long as there is an online pod whose pages are not known.
"""

from __future__ import annotations

from collections.abc import Iterable

from nodeagent.model.decision import KnownUse
from nodeagent.model.snapshot import NodeMemory


def zone_bytes(
    memory: Iterable[NodeMemory], online: Iterable[KnownUse], batch: Iterable[KnownUse], system_bytes: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Bytes by NUMA node: (online, system). `memory` is what each node's meminfo told in this tick."""
    used = {each.numa_node: _used(each) for each in memory if each.numa_node is not None}
    online_here, online_lost = _placed(online)
    batch_here, batch_lost = _placed(batch)
    left = {n: max(0.0, u - online_here.get(n, 0.0) - batch_here.get(n, 0.0)) for n, u in used.items()}
    share = _shares(left) or _shares(used)
    others = system_bytes + sum(each.memory_bytes or 0.0 for each in batch_lost)
    if online_lost:
        for node, size in left.items():
            more = max(0.0, size - others * share.get(node, 0.0))
            online_here[node] = online_here.get(node, 0.0) + more
    nodes = used.keys() | online_here.keys()
    return (
        {node: online_here.get(node, 0.0) for node in sorted(nodes)},
        {node: system_bytes * share.get(node, 0.0) for node in sorted(nodes)},
    )


def _placed(pods: Iterable[KnownUse]) -> tuple[dict[int, float], list[KnownUse]]:
    """Working sets by NUMA node, and the pods that cannot be placed."""
    placed: dict[int, float] = {}
    lost: list[KnownUse] = []
    for pod in pods:
        if pod.pages is None or pod.memory_bytes is None:
            lost.append(pod)
            continue
        total = pod.pages[0][1] if len(pod.pages) == 1 else sum(size for _, size in pod.pages)
        for node, size in pod.pages:
            if size > 0:
                placed[node] = placed.get(node, 0.0) + pod.memory_bytes * size / total
    return placed, lost


def _shares(sizes: dict[int, float]) -> dict[int, float]:
    total = sum(sizes.values())
    return {node: size / total for node, size in sizes.items()} if total > 0.0 else {}


def _used(memory: NodeMemory) -> float:
    """Bytes in use on a NUMA node, without what the kernel would drop first."""
    droppable = (memory.inactive_file_bytes or 0) + (memory.reclaimable_bytes or 0)
    return max(0.0, float(memory.total_bytes - memory.free_bytes - droppable))
