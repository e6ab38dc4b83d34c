"""`python -m tests.bench`: every bench_*.py here in order; exit 1 when a target was missed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    held = [importlib.import_module(f"tests.bench.{name}").main() for name in names]
    return 0 if all(result is not False for result in held) else 1


if __name__ == "__main__":
    sys.exit(main())
