"""`python -m nodeagent.kernel.build_kept`: compile _kept.c beside itself, where the agent finds it at its start.

Optional: without it kept.py does the same. Invariant: what is there is replaced as a whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from nodeagent.model.errors import AgentError, Failed

SOURCE = Path(__file__).with_name("_kept.c")
_LIMIT_S = 120.0


def build(directory: Path = SOURCE.parent) -> Path:
    """The compiled module, put into `directory`. Failed without a C compiler or Python's headers."""
    found = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise Failed("there is no C compiler", hint="Debian: apt-get install gcc libc6-dev python3-dev")
    made = directory / f"_kept{sysconfig.get_config_var('EXT_SUFFIX')}"
    new = made.with_suffix(".new")
    words = [found, "-O2", "-fPIC", "-shared", "-Wall", "-Werror", f"-I{sysconfig.get_path('include')}"]
    try:
        subprocess.run(
            [*words, str(SOURCE), "-o", str(new)], check=True, capture_output=True, timeout=_LIMIT_S
        )
        os.replace(new, made)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        first = said.decode("utf-8", "replace").strip().partition("\n")[0]
        hint = (
            "it takes a C compiler and Python's headers (Debian: apt-get install gcc libc6-dev python3-dev)"
        )
        raise Failed(f"{SOURCE.name} cannot be compiled: {first}", hint=hint) from error
    finally:
        new.unlink(missing_ok=True)
    return made


def main() -> int:
    """Compile, and say where the result is; 1 when it cannot be."""
    try:
        sys.stdout.write(f"{build()}\n")
    except AgentError as error:
        sys.stderr.write(f"build_kept: {error} ({error.hint})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
