"""The node as the loop sees it, on the real cgroups: what happens while it looks is not missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import nodeagent.host
from nodeagent.host import Host
from nodeagent.model.pod import CgroupDir, Claim, PodRule, Qos
from nodeagent.model.settings import AgentSettings
from nodeagent.pods.recognise import Recognised, recognised
from nodeagent.pods.told import Told

pytestmark = pytest.mark.live
TOP = f"na-test-{os.getpid()}-host"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    rule = PodRule(match=f"{TOP}/*", qos=Qos.MID)
    host = Host(AgentSettings(run_dir=str(tmp_path / "run"), scan_s=3600.0), (rule,))
    yield host
    host.close()
    for path in (f"{TOP}/late", TOP):
        Path(host.hierarchies.walk_root, path).rmdir()


def test_a_pod_made_between_the_walk_and_the_watches_is_seen_in_that_tick(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = Path(host.hierarchies.walk_root, TOP)
    host.read(0, {}, "timer")
    top.mkdir()
    host.forget_scan()

    def late(
        dirs: tuple[CgroupDir, ...], rules: tuple[PodRule, ...], claims: dict[str, Claim], told: Told
    ) -> Recognised:
        """The walk is done; its directories are not watched yet."""
        (top / "late").mkdir(exist_ok=True)
        return recognised(dirs, rules, claims, told)

    monkeypatch.setattr(nodeagent.host, "recognised", late)
    assert f"{TOP}/late" in [pod.spec.cgroup for pod in host.read(1, {}, "cgroup").pods]
