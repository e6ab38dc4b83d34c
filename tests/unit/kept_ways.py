"""Both ways of reading kept files: the compiled one, built for the tests where it can be, and Python's."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nodeagent.kernel import build_kept, files
from nodeagent.model.errors import AgentError

NAME = "nodeagent.kernel._kept"


@cache
def _built() -> str | AgentError:
    try:
        return str(build_kept.build(Path(tempfile.mkdtemp(prefix="na-kept-"))))
    except AgentError as error:
        return error


def compiled() -> str:
    """The compiled module's path; the test is skipped where it cannot be compiled."""
    found = _built()
    if isinstance(found, AgentError):
        pytest.skip(f"{found} ({found.hint})")
    return found


def files_by(extension: str | None) -> Any:  # Any: nodeagent.kernel.files, loaded anew
    """nodeagent.kernel.files over the compiled module at this path, None: over the one in Python."""
    before = sys.modules.get(NAME)
    sys.modules[NAME] = None if extension is None else _loaded(NAME, extension)  # type: ignore[assignment]
    try:
        return _loaded(f"files_by_{'python' if extension is None else 'c'}", str(files.__file__))
    finally:
        if before is None:
            del sys.modules[NAME]
        else:
            sys.modules[NAME] = before


def _loaded(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
