"""What the node spends outside Batch, on captured trees of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.outside import MOST
from nodeagent.kernel.reader import NodeReader
from tests.unit import trees

CG = "sys/fs/cgroup"
V1 = {f"{CG}/cpuacct/cpuacct.usage": "9000000\n", f"{CG}/cpuacct/batch/cpuacct.usage": "2000000\n"}
V2 = {
    f"{CG}/cpu.stat": "usage_usec 9000\nuser_usec 1\n",
    f"{CG}/batch/cpu.stat": "usage_usec 2000\nuser_usec 1\n",
}


@pytest.fixture(params=["v1", "v2"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeReader]:
    tree = {"v1": trees.V1 | V1, "v2": trees.V2 | V2}[request.param]
    made = NodeReader(trees.plant(tmp_path, tree))
    yield made
    made.close()
    assert made.kept == 0


def test_it_is_what_all_spend_less_what_batch_does(reader: NodeReader) -> None:
    outside = reader.outside_batch()
    assert outside.used_us() == 9000
    outside.follow(("batch",))
    assert outside.used_us() == 7000
    outside.follow(())
    assert outside.used_us() == 9000
    outside.close()


def test_a_cgroup_that_is_not_there_yet_is_found_when_it_has_come(reader: NodeReader, tmp_path: Path) -> None:
    outside = reader.outside_batch()
    outside.follow(("late",))
    assert outside.used_us() is None
    trees.plant(
        tmp_path,
        {f"{CG}/cpuacct/late/cpuacct.usage": "1000000\n", f"{CG}/late/cpu.stat": "usage_usec 1000\n"},
    )
    assert outside.used_us() == 8000
    outside.close()


def test_it_is_not_known_where_a_part_is_not(reader: NodeReader) -> None:
    outside = reader.outside_batch()
    outside.follow(("batch", "gone"))
    assert outside.used_us() is None
    outside.follow(tuple(f"batch{number}" for number in range(MOST + 1)))
    assert outside.used_us() is None
    outside.close()
