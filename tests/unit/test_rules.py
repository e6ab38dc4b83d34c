"""Alerts and panels: promtool runs each alert's test, and they speak of metrics that the agent has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit.charts import CHART
from tests.unit.metric_pages import busy_tick, page

RULES = CHART / "files" / "rules.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
TESTS = Path(__file__).with_name("rules_test.yaml")
# Shown only where there is what they tell of.
SOMETIMES = {
    "nodeagent_controller_connected",  # a controller is configured
    "nodeagent_offline_memory_term_bytes",  # the sample has no terms of memory; tests/live has
    "nodeagent_placement_pods",  # pods are placed
    "nodeagent_tls_files_ok",  # TLS is configured
    "nodeagent_tls_not_after_seconds",
    "nodeagent_controller_tls_not_after_seconds",  # both
}
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}


def promtool(*words: str | Path) -> str:
    """What promtool answers when it finds nothing wrong."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> Iterator[str]:
    """Of all panels, with values in the place of variables."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield text


def rules() -> list[dict[str, str]]:
    """Alerts and recorded series."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_promtool_takes_the_rules_and_each_alert_says_what_its_test_expects(tmp_path: Path) -> None:
    plain = yaml.safe_load(RULES.read_text())
    for group in plain["groups"]:
        for rule in group["rules"]:
            rule.get("annotations", {}).pop("description", None)  # prose: the tests are about the rest
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(plain))
    shutil.copy(TESTS, tmp_path)
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", tmp_path / TESTS.name)


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    asked = [
        t for each in yaml.safe_load(TESTS.read_text())["tests"] for t in each.get("alert_rule_test", ())
    ]
    fired = {test["alertname"] for test in asked if test["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert yaml.safe_load(str(rule["labels"]))["severity"] in ("info", "warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}


def test_promtool_parses_the_expression_of_every_panel(tmp_path: Path) -> None:
    made = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    assert f"{len(made)} rules found" in promtool("check", "rules", tmp_path / "panels.yaml")
    assert len(made) > 30


def test_rules_and_panels_speak_of_metrics_that_there_are() -> None:
    shown = {re.split(r"[{ ]", line)[0] for line in page(busy_tick()).splitlines() if line[0] != "#"}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {
        name
        for text in (*expressions(), *(rule["expr"] for rule in rules()))
        for name in re.findall(r"(?<![:\w])nodeagent_\w+", text)
    }
    assert used - shown - SOMETIMES == set()
    assert {name for name in recorded if not re.fullmatch(r"[a-z]+:nodeagent_\w+:\w+", name)} == set()


def test_panels_do_not_overlap_and_each_has_its_number() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
