"""The real agent inside the host of a lab."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.live.nic_lab import GIGABIT, Lab, classes, inside
from tests.live.nic_loads import Load
from tests.live.running import RunningAgent, running, until

LS, MID, BATCH = "4e51:10", "4e51:20", "4e51:30"
Rule = Mapping[str, object]
SETTINGS: Any = {"agent__tick_s": 1.0, "grpc__address": "", "journal__enabled": False}

ONLINE: Rule = {"match": "nic0", "role": "online", "link_bps": GIGABIT}
BULK: Rule = {"match": "nic1", "role": "bulk", "link_bps": GIGABIT}


def configured(home: Path, *rules: Rule, **nic: object) -> Path:
    """A configuration with these [[nics]] entries and [nic] values; nothing but NICs is enforced."""
    lines = ["[agent]", 'enforce = ["nic"]', "[nic]", *(f"{key} = {_toml(nic[key])}" for key in nic)]
    for rule in rules or (ONLINE,):
        lines += ["[[nics]]", *(f"{key} = {_toml(rule[key])}" for key in rule)]
    path = home / f"nodeagent-{time.monotonic_ns()}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value}"


@contextlib.contextmanager
def shaping(made: Lab, home: Path, config: Path | None = None, **values: object) -> Iterator[RunningAgent]:
    """An agent in the lab's host whose tree is there; stopped on leaving."""
    with running(home, config or configured(home), inside(made.host), **{**SETTINGS, **values}) as agent:
        with contextlib.suppress(AssertionError):
            until(lambda: BATCH in classes(made) or agent.process.poll() is not None, "a tree")
        assert BATCH in classes(made), agent.log_path.read_text()
        yield agent


def until_classified(made: Lab, name: str, nic: str = "nic0", *, packets: int = 50) -> None:
    """Wait until more of the traffic that runs now is in this class."""
    begin = classes(made, nic)[name].packets
    until(lambda: classes(made, nic)[name].packets >= begin + packets, f"traffic in {name} of {nic}")


def until_open(made: Lab, bps: float, nic: str = "nic0") -> None:
    """Wait until Batch may take so much: its ceiling goes up in steps from where it began."""
    until(lambda: classes(made, nic)[BATCH].ceil_bps >= 0.98 * bps, f"Batch may send {bps:g} bits/s", 60.0)


class Meter:
    """What the classes of a NIC send from now on."""

    def __init__(self, made: Lab, nic: str = "nic0") -> None:
        self._made, self._nic = made, nic
        self._counts, self._at = classes(made, nic), time.monotonic()

    def bps(self, name: str) -> float:
        """Bits per second at the qdisc, until now."""
        sent = classes(self._made, self._nic)[name].bytes - self._counts[name].bytes
        return sent * 8 / (time.monotonic() - self._at)


def lost(collecting: Load) -> float:
    """Numbers that did not come although a later one did."""
    return collecting.tell()["missing"]
