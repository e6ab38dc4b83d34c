"""`once` on a captured node."""

from __future__ import annotations

from pathlib import Path

from nodeagent.config import load
from nodeagent.once import look
from tests.unit.trees import V2, plant


def test_the_shortest_tick_still_tells_what_batch_may_use(tmp_path: Path) -> None:
    root = plant(tmp_path, V2 | {"proc/sys/kernel/random/boot_id": "b0b0b0b0-0000-0000-0000-000000000001\n"})
    config = load(None, env={}, overrides={"agent.host_root": root, "agent.tick_s": "0.1"})
    decision = look(config).tick.decision
    assert decision.batch_limit_cores is not None, decision.limit_why
    assert decision.capacity.withdrawn == ""
