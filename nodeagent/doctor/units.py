"""Can systemd be asked to keep what is set on its units?"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status, judged
from nodeagent.model.errors import AgentError
from nodeagent.units.bus import INSTALL, Bus, booted, unusable

LIMIT_S = 5.0
NAME = "systemd properties"


def systemd_properties(host: Host) -> Iterator[Finding]:
    """Asked for real: a connection to systemd's private socket, and nothing set."""
    if not booted(host.root):
        yield Finding(NAME, Status.INFO, "no: systemd is not this host's pid 1; cgroup files alone")
        return
    if unusable(host.root):
        yield judged(NAME, False, "no: the package jeepney is not installed", INSTALL)
        return
    try:
        with Bus(host.root, LIMIT_S) as bus:
            version = bus.version()
    except AgentError as error:
        yield judged(NAME, False, f"no: {error}", error.hint or "until then cgroup files alone are written")
        return
    yield Finding(NAME, Status.OK, f"yes: systemd {version} keeps through daemon-reload what is set on units")


UNITS: tuple[Check, ...] = (systemd_properties,)
