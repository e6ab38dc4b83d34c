"""The six ways things go wrong, each with what the operator can do about it."""

from __future__ import annotations


class AgentError(Exception):
    """Base of all expected errors: one clear line, and a hint when there is something to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Unsupported(AgentError):
    """This host can never give it: the file, controller or feature does not exist here."""


class Gone(AgentError):
    """The cgroup, process or device vanished; normal in mid-read."""


class Garbled(AgentError):
    """The text is not in the format that the kernel documents."""


class Refused(AgentError):
    """The kernel or a permission refused a read or a write."""


class Failed(AgentError):
    """A command could not do its work (lock held, no state, disk full); exit 1."""


class Misconfigured(AgentError):
    """The configuration is wrong; exit 78 (EX_CONFIG of sysexits.h)."""

    exit_code = 78
