"""`python -m tests.bench [NAME ...]`: every bench_*.py here, or those named; 1 if a target was missed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(wanted: list[str]) -> int:
    """Run the benchmarks that are called so ("read"), or all of them."""
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    if unknown := set(wanted) - set(names):
        print(f"bench: no {', '.join(sorted(unknown))}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    held = [importlib.import_module(f"tests.bench.bench_{name}").main() for name in wanted or names]
    return 0 if all(result is not False for result in held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
