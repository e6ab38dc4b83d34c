"""Setting one key alone never makes a default that belongs to it wrong."""

from __future__ import annotations

import pytest

from nodeagent.config import load


@pytest.mark.parametrize(
    ("key", "value", "follows"),
    [
        ("agent.tick_s", "20", {"agent.slow_tick_s": 20.0, "capacity.stale_after_s": 40.0}),
        ("agent.tick_s", "60", {"agent.scan_s": 60.0}),
        ("agent.slow_tick_s", "30", {"capacity.stale_after_s": 60.0}),
        ("journal.max_bytes", "1MiB", {"journal.segment_bytes": 1 << 19}),
        ("cpu.floor_cores", "0.01", {"cpu.pod_floor_cores": 0.01}),
        ("drift.backoff_s", "100", {"drift.backoff_max_s": 100.0}),
        ("agent.tick_s", "30", {"interference.lease_s": 90.0, "interference.trial_s": 60.0}),
        ("interference.relax_after_s", "3600", {"interference.relax_max_s": 3600.0}),
    ],
)
def test_a_default_follows_the_key_that_it_depends_on(
    key: str, value: str, follows: dict[str, float]
) -> None:
    config = load(None, env={}, overrides={key: value})
    for name, expected in follows.items():
        section, _, field = name.partition(".")
        owner = config.policy if hasattr(config.policy, section) else config.settings
        assert getattr(getattr(owner, section), field) == expected
        assert config.origins[name] == f"default, follows {key}" or name == "capacity.stale_after_s"
