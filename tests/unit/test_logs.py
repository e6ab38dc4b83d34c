"""The log as a machine reads it."""

from __future__ import annotations

import json
import subprocess
import sys


def test_no_limit_is_a_word_so_that_every_line_is_json() -> None:
    code = (
        "import math, structlog; from nodeagent.report.logs import set_up\n"
        "from nodeagent.model.settings import Level\n"
        "set_up(Level.INFO, as_json=True, quiet=False)\n"
        "structlog.get_logger().info('batch.limit', new=math.inf, old=2.5, pod='a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    line = json.loads(done.stderr, parse_constant=lambda word: f"not JSON: {word}")
    assert (line["new"], line["old"], line["pod"]) == ("unlimited", 2.5, "a")


def test_the_daemon_does_without_rich_and_its_screen_has_it() -> None:
    code = (
        "import sys\n"
        "from nodeagent.garbage import left_out\n"
        "with left_out('rich'):\n"
        "    import nodeagent.agent, nodeagent.report.logs\n"
        "assert not [name for name in sys.modules if name.startswith('rich')]\n"
        "import nodeagent.report.screen, rich\n"
        "with left_out('rich'):\n"
        "    import rich\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
