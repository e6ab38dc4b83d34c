"""Whose packets are in which class, where the hierarchies differ."""

from __future__ import annotations

import pytest

from nodeagent.core.nic.marks import marks
from nodeagent.model.nic import Classifier, NicsSeen
from nodeagent.model.pod import PodSpec, Qos
from tests.unit.nic_node import net

SORT = PodSpec(
    uid="sort",
    name="sort",
    cgroup="nodeagent/batch/sort",
    inode=1,
    qos=Qos.BATCH,
    source="rule",
    tier="nodeagent/batch",
)


@pytest.mark.parametrize(
    ("tier", "level", "entries"),
    [
        (70, 3, ((2, 70, Qos.BATCH),)),
        (None, 3, ((3, 71, Qos.BATCH),)),
        (70, 1, ((1, 71, Qos.BATCH), (2, 70, Qos.BATCH))),
    ],
    ids=["in the tier", "the tier is in v1 alone", "elsewhere in v2"],
)
def test_a_pod_that_its_tier_does_not_stand_for_has_an_entry_of_its_own(
    tier: int | None, level: int, entries: tuple[tuple[int, int, Qos], ...]
) -> None:
    seen = NicsSeen(
        pods=(net("sort", host_network=True, cgroup_id=71, level=level),),
        tiers=(net("nodeagent/batch", cgroup_id=tier, level=2 if tier else 0),),
    )
    found = marks(seen, [SORT], Classifier.NFT, "")
    assert (found.cgroups, found.unclassified) == (entries, ())
