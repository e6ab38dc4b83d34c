"""`python -m tests.bench [NAME ...]`: every bench_*.py here, or those named; 1 if a target was missed.

`nic`, `collect`, `endurance`, `soak` and `tide` take long, and have words of their own:
`python -m tests.bench soak --minutes 10`. Of the others `cost` and `profile` have some: `cost --quick`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

APART = ("collect", "endurance", "nic", "soak", "tide")
WORDED = ("cost", "profile")  # of those bench_*.py that take words too


def main(wanted: list[str]) -> int:
    """Run the benchmarks that are called so ("read"), or all of them but those that stand apart."""
    if wanted and wanted[0] in APART:
        held_apart: int = importlib.import_module(f"tests.bench.{wanted[0]}").main(wanted[1:])
        return held_apart
    if wanted and wanted[0] in WORDED:
        all_held: bool = importlib.import_module(f"tests.bench.bench_{wanted[0]}").main(wanted[1:])
        return 0 if all_held else 1
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    if unknown := set(wanted) - set(names):
        print(f"bench: no {', '.join(sorted(unknown))}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    held = [importlib.import_module(f"tests.bench.bench_{name}").main() for name in wanted or names]
    return 0 if all(result is not False for result in held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
