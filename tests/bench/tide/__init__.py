"""`python -m tests.bench tide`: one day of online CPU use, lent by nodeagent and by its peers.

Every lender is played on the same trace, the same modelled node and the same seeded stream of Batch tasks
(nodeagent/simulate). The peers' formulas are re-implemented from what is published of them, each with its own
periods and defaults; see the modules here for what was assumed where nothing is published.
"""

from __future__ import annotations


def main(words: list[str]) -> int:
    """Run it; 1 if a target was missed."""
    from tests.bench.tide.run import run

    return run(words)
