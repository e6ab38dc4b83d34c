"""The co-location experiment's runs on real cgroups, with a server and a job that need no other package."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_LS, OWN_TIER
from tests.bench.colocate.runs import KOORDLET, NODEAGENT
from tests.bench.colocate.stage import Setting, perform
from tests.bench.colocate.tide import Shape
from tests.bench.eval.tools import Tools
from tests.live.running import SLOWNESS

pytestmark = pytest.mark.live


@pytest.mark.parametrize("variant", [KOORDLET, NODEAGENT])
def test_a_run_answers_requests_counts_work_and_bounds_batch_and_leaves_nothing(variant: str) -> None:
    setting = Setting(
        Tools({}, (), {}), Shape(2.5 * SLOWNESS**0.5, 3.0), {"python": 60.0 / SLOWNESS}, ("compress",), seed=1
    )
    run = perform(variant, 0, setting)
    told, job = run.online["python"], run.batch["compress"]
    assert told.sent > 0 and told.answered > 0 and told.cpu_s > 0.0
    assert job.work > 0.0 and job.cpu_s > 0.0
    assert any(moment.quota is not None for moment in run.line), "somebody bounds Batch"
    root = find_hierarchies().roots["cpu"].root
    assert not [path for top in (OWN_LS, OWN_TIER) for path in Path(root, top).glob("na-colo-*")]
