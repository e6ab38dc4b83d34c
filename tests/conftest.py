"""What all tests share: live tests need root, and laws are not timed on a machine that is busy."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# What has passed passes again where it decides about a change (CI); elsewhere each run looks for what is new.
settings.register_profile(
    "nodeagent",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nodeagent")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason="needs root: it makes cgroups on this machine"))
