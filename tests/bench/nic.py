"""`python -m tests.bench.nic [--quick] [NAME ...]`: the nic_*.py with a `main`; 1 if a target was missed.

All of them build a host, a peer and a wire of network namespaces (tests/live/nic_lab.py), run the real agent
in the host, and compare within one run. On a machine with few CPUs the programs of both ends share them.
"""

from __future__ import annotations

import importlib
import os
import sys

NAMES = ("protection", "incoming", "two", "ceilings", "dynamic", "cost")
ROUNDS = 3
MEASURED_S = 4.0


def main(arguments: list[str]) -> int:
    """Run the benchmarks that are called so ("two"), or all of them."""
    quick = "--quick" in arguments
    wanted = [name for name in arguments if name != "--quick"]
    if unknown := set(wanted) - set(NAMES):
        print(f"bench: no {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench: network namespaces need root", file=sys.stderr)
        return 2
    rounds, measured_s = (1, MEASURED_S / 2) if quick else (ROUNDS, MEASURED_S)
    modules = [importlib.import_module(f"tests.bench.nic_{name}") for name in wanted or NAMES]
    held = [module.main(rounds, measured_s) for module in modules]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
