"""How the link fares, on /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from nodeagent.model.controller import LinkSeen
from nodeagent.report.metrics import OWN_SERIES, Metrics, OwnCost
from tests.unit import samples

SENT = {"full": 2, "delta": 30, "heartbeat": 4, "directive_result": 0}


def page(seen: LinkSeen | None) -> dict[tuple[str, str], float]:
    metrics = Metrics("0.1")
    metrics.observe_tick(samples.tick(1, pods=0), 0.001, OwnCost(1.0, 2))
    metrics.linked(seen)
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, "".join(s.labels.values())): s.value for family in families for s in family.samples}


def test_the_link_is_told_where_there_is_one() -> None:
    seen = LinkSeen(True, 2, 1, SENT, {"taken": 1, "refused": 0}, 1_790_000_000.5, 1_800_000_000.0)
    found = page(seen)
    assert found["nodeagent_controller_connected", ""] == 1
    assert found["nodeagent_controller_connects_total", ""] == 2
    assert found["nodeagent_controller_losses_total", ""] == 1
    assert {kind: found["nodeagent_controller_sent_total", kind] for kind in SENT} == SENT
    assert found["nodeagent_controller_directives_total", "taken"] == 1
    assert found["nodeagent_controller_last_sent_timestamp_seconds", ""] == 1_790_000_000.5
    assert found["nodeagent_controller_tls_not_after_seconds", ""] == 1_800_000_000.0


def test_nothing_is_told_of_a_link_that_is_not_configured_or_of_a_report_that_never_went_out() -> None:
    assert not [name for name, _ in page(None) if "controller" in name]
    assert not [
        name
        for name, _ in page(LinkSeen(False, 0, 3, SENT, {}, None))
        if "last_sent" in name or "tls" in name
    ]


def test_the_series_of_the_agent_itself_are_as_few_as_their_share_of_the_cap() -> None:
    mine, link = page(None), page(LinkSeen(True, 2, 1, SENT, {"taken": 1, "refused": 0}, 1.0, 1.0))
    assert len(link) - len(mine) == 11
    own = Metrics("0.1")
    families = text_string_to_metric_families(own.render().decode())
    assert sum(len(family.samples) for family in families) + 11 <= OWN_SERIES
