"""`nodeagent doctor`: what this host gives the agent, what it lacks, and how to mend it. Changes nothing.

Each check is a function from Host to Findings, in one tuple below; it asks `kernel.probe` and judges here.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from nodeagent.config import Config
from nodeagent.doctor.actors import ACTORS
from nodeagent.doctor.apps import APPS
from nodeagent.doctor.cgroups import CGROUPS
from nodeagent.doctor.controller import CONTROLLER
from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.doctor.foreign import FOREIGN
from nodeagent.doctor.interference import INTERFERENCE
from nodeagent.doctor.kubernetes import KUBERNETES
from nodeagent.doctor.machine import MACHINE
from nodeagent.doctor.nics import NICS
from nodeagent.doctor.process import PROCESS
from nodeagent.doctor.units import UNITS
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.model.errors import AgentError

__all__ = ["CHECKS", "Finding", "Status", "as_json", "as_text", "examine", "failed"]

CHECKS: tuple[Check, ...] = (
    *MACHINE,
    *NICS,
    *CGROUPS,
    *UNITS,
    *PROCESS,
    *ACTORS,
    *FOREIGN,
    *INTERFERENCE,
    *KUBERNETES,
    *CONTROLLER,
    *APPS,
)


def examine(config: Config, checks: tuple[Check, ...] = CHECKS) -> tuple[Finding, ...]:
    """All findings about the host whose / is at agent.host_root; `config` also tells directories and mode."""
    host_root = config.settings.agent.host_root
    cgroups, missing = _hierarchies(host_root)
    host = Host(host_root, config, cgroups)
    return (*missing, *(finding for check in checks for finding in _asked(check, host)))


def failed(findings: tuple[Finding, ...]) -> bool:
    """True when the agent cannot work on this host as it is configured."""
    return any(finding.status is Status.FAIL for finding in findings)


def as_json(findings: tuple[Finding, ...]) -> str:
    """A JSON list of the findings, one per line."""
    return "[\n" + ",\n".join(msgspec.json.encode(finding).decode() for finding in findings) + "\n]"


def as_text(findings: tuple[Finding, ...]) -> str:
    """One line per finding, its fix below it, and a line of totals."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status.value:4}  {finding.name:{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':{width + 6}}  -> {finding.fix}")
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    return "\n".join([*lines, ", ".join(f"{count} {status.value}" for status, count in counts.items())])


def _hierarchies(host_root: str) -> tuple[Hierarchies | None, tuple[Finding, ...]]:
    try:
        return find_hierarchies(host_root), ()
    except AgentError as error:
        return None, (Finding("cgroups", Status.FAIL, str(error), error.hint),)


def _asked(check: Check, host: Host) -> Iterator[Finding]:
    try:
        yield from check(host)
    except (AgentError, OSError, ValueError) as error:
        fix = (
            error.hint if isinstance(error, AgentError) else ""
        ) or "run as root; else this is a bug: report it"
        yield Finding(check.__name__.replace("_", " "), Status.WARN, f"could not be examined: {error}", fix)
