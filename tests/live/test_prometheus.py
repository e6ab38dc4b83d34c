"""A real Prometheus scrapes a real agent: rules are evaluated, and each panel's expression is answered."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.running import SLOWNESS, SPIN, TIMEOUT_S, executed, running, unique, until
from tests.unit.test_rules import RULES, expressions

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus (Debian package prometheus)"),
]
# What an agent that shapes no traffic and places no pods has nothing to show for, on a node that is calm.
MAY_BE_EMPTY = ("nodeagent_nic_", "nodeagent_placement_", "nodeagent_signals", "_pressure_", "[24h]")


class Prometheus:
    """The HTTP API of one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """It answers queries."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5 * SLOWNESS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **values: object) -> Any:
        """`data` of an answer; AssertionError with Prometheus' words for an error."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(values)}"
        try:
            with urllib.request.urlopen(url, timeout=30 * SLOWNESS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{values}: {error.read().decode()}") from None


@contextlib.contextmanager
def _prometheus(home: Path, target: str) -> Iterator[Prometheus]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scrape = {"job_name": "nodeagent", "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [scrape],
    }
    file = home / "prometheus.yml"
    file.write_text(json.dumps(config))
    words = [
        f"--config.file={file}",
        f"--storage.tsdb.path={home}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (home / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
    try:
        found = Prometheus(port)
        until(lambda: found.ready() or process.poll() is not None, "Prometheus is ready")
        assert process.poll() is None, (home / "prometheus.log").read_text()
        yield found
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


def test_rules_are_evaluated_and_every_panel_is_answered(tmp_path: Path) -> None:
    name = unique("shown")
    with running(tmp_path, http__address="127.0.0.1:0", agent__mode="observe", grpc__address="") as agent:
        target = agent.named("http.listening")[0]["address"]
        with (
            executed(agent.runtime, "batch", name, f"timeout 20 sh -c '{SPIN}'"),
            _prometheus(tmp_path, target) as prometheus,
        ):

            def lent() -> bool:
                return bool(prometheus.get("query", query="cluster:nodeagent_lent_cores:rate5m")["result"])

            until(lent, "two scrapes and an evaluation")
            ask = list(expressions())
            answers = {expr: prometheus.get("query", query=expr)["result"] for expr in ask}
            now = time.time()
            for expr in ask:
                prometheus.get("query_range", query=expr, start=now - 60, end=now, step=5)
            groups = prometheus.get("rules")["groups"]
    empty = {expr for expr, result in answers.items() if not result}
    assert {expr for expr in empty if not any(part in expr for part in MAY_BE_EMPTY)} == set()
    rules = [rule for group in groups for rule in group["rules"]]
    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing == set(), "an agent that works raises no alarm"
