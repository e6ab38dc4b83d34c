"""A loop that has stopped ticking: whatever is asked, nothing is offered any more."""

from __future__ import annotations

from pathlib import Path

from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit.rpc_clients import WAIT_S, client, eventually, offering, serving


def test_the_report_of_a_stale_tick_offers_no_more_than_the_capacity(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s") as server, client(server) as stub:

        def reported() -> pb.Capacity:
            answer = stub.GetNodeReport(pb.GetNodeReportRequest(), timeout=WAIT_S)
            capacity: pb.Capacity = answer.report.capacity
            return capacity

        server.publish(offering(1, 4.0, valid_s=60.0))
        assert reported().cpu.available_cores == 4.0
        server.publish(offering(2, 4.0, valid_s=0.2))
        assert eventually(lambda: reported().withdrawn.startswith("stale"))
        assert reported() == stub.GetCapacity(pb.GetCapacityRequest(), timeout=WAIT_S).capacity
        assert reported().cpu.available_cores == 0.0
        server.publish(offering(3, 4.0, valid_s=60.0))
        assert reported().cpu.available_cores == 4.0
