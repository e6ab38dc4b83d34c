"""A private socket that answers as systemd does, above files that stand for cgroups, and ticks above it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jeepney

from nodeagent.core.diff import diff
from nodeagent.hands import Acting
from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.loop import Loop
from nodeagent.model.decision import Decision
from nodeagent.model.plan import Change, Knob, Outcome, Setting, Value
from nodeagent.originals import Originals

BOOT = "2c5f0a66-93a5-4d0b-a9c8-6a8f4a1d7f10"
INFINITY = (1 << 64) - 1
SETTINGS = {"CPUQuotaPerSecUSec": "CPUQuota"}
NO_UNIT, INVALID = "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.InvalidArgs"


class Systemd:
    """Units by name at their cgroups' paths, each with a quota of two cores."""

    def __init__(self, root: Path, paths: Collection[str], version: str = "252.39-1~deb12u1") -> None:
        self.control, self.cgroups = root / "run/systemd/system.control", root / "cg"
        self.control.mkdir(parents=True)
        (root / "run/systemd/system").mkdir()
        self.paths = {path.rpartition("/")[2]: path for path in paths}
        self.properties = {
            unit: {"CPUQuotaPerSecUSec": 2_000_000, "CPUWeight": INFINITY} for unit in self.paths
        }
        self.unloaded: set[str] = set()
        self.refused: set[str] = set()
        self.told: list[tuple[str, dict[str, int]]] = []
        self.version, self.delay_s = version, 0.0
        for path in paths:
            self.start(path, 2.0)

    def start(self, path: str, cores: float) -> None:
        group = self.cgroups / path
        group.mkdir(parents=True)
        for name, text in (("cpu.max.burst", "0"), ("cpu.weight", "100"), ("cpu.idle", "0")):
            (group / name).write_text(f"{text}\n")
        self.write(path, cores)

    def write(self, path: str, cores: float) -> None:
        (self.cgroups / path / "cpu.max").write_text(f"{round(cores * 100_000)} 100000\n")

    def quota(self, path: str) -> float:
        return int((self.cgroups / path / "cpu.max").read_text().split()[0]) / 100_000

    def dropins(self, unit: str) -> dict[str, str]:
        return {file.name: file.read_text() for file in (self.control / f"{unit}.d").glob("*")}

    def set(self, unit: str, values: Mapping[str, int]) -> None:
        """What `systemctl set-property --runtime` does, too: property, drop-in, and all files of the unit."""
        self.properties[unit].update(values)
        directory = self.control / f"{unit}.d"
        directory.mkdir(exist_ok=True)
        for name, value in values.items():
            (directory / f"50-{SETTINGS.get(name, name)}.conf").write_text(f"{value}\n")
        if (self.cgroups / self.paths[unit]).is_dir():
            self.write(self.paths[unit], self.properties[unit]["CPUQuotaPerSecUSec"] / 1e6)

    @contextmanager
    def listening(self) -> Iterator[Systemd]:
        directory = os.open(self.control.parent, os.O_PATH)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{directory}/private")
            os.close(directory)
            server.listen(16)
            thread = threading.Thread(target=self._accept, args=(server,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            with client:
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while b"BEGIN\r\n" not in data:
            data += client.recv(4096)
        parser, serial = jeepney.Parser(), 0
        parser.add_data(data.partition(b"BEGIN\r\n")[2])
        try:
            client.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            while True:
                while (message := parser.get_next_message()) is None:
                    if not (more := client.recv(65536)):
                        return
                    parser.add_data(more)
                serial += 1
                time.sleep(self.delay_s)
                client.sendall(self._answer(message).serialise(serial=serial))
        except OSError:
            return

    def _answer(self, message: Any) -> Any:
        fields = message.header.fields
        match fields[jeepney.HeaderFields.member], message.body:
            case "Ping", _:
                return jeepney.new_method_return(message)
            case "GetUnit", (unit,) if unit in self.paths and unit not in self.unloaded:
                return jeepney.new_method_return(message, "o", (f"/unit/{unit.encode().hex()}",))
            case "Get", (_, "Version"):
                return jeepney.new_method_return(message, "v", (("s", self.version),))
            case "Get", (_, name):
                unit = bytes.fromhex(fields[jeepney.HeaderFields.path].rpartition("/")[2]).decode()
                if name == "ControlGroup":
                    return jeepney.new_method_return(message, "v", (("s", f"/{self.paths[unit]}"),))
                return jeepney.new_method_return(message, "v", (("t", self.properties[unit][name]),))
            case "SetUnitProperties", (unit, _, pairs) if unit in self.paths:
                values = {name: value for name, (_, value) in pairs}
                old = int(self.version.partition(".")[0]) < 252
                if unit in self.refused or (old and values.get("CPUWeight") == 0):
                    return jeepney.new_error(message, INVALID, "s", ("out of range",))
                self.told.append((unit, values))
                self.set(unit, values)
                return jeepney.new_method_return(message)
        return jeepney.new_error(message, NO_UNIT, "s", ("not loaded",))


class Agent:
    """Reads, writes and tells of the knobs at these paths, by the agent's own hands."""

    def __init__(self, root: Path, knobs: Collection[Knob]) -> None:
        hierarchy = Hierarchy(2, str(root / "cg"), frozenset({"cpu"}))
        self._targets = knobs
        self.originals = Originals(str(root / "state"), BOOT)
        self.knobs = Knobs(Hierarchies({"cpu": hierarchy}, str(root / "cg"), (hierarchy,)))
        self.keeper = Keeper(str(root), {"cpu": 2}, self.originals)
        self.knobs.gives = self.keeper.gives
        host = SimpleNamespace(
            inode=self.knobs.inode,
            apply=self.knobs.apply,
            vanished=self.knobs.vanished,
            move=None,
            network=None,
        )
        self._host = cast(Host, host)
        self._hands = Acting(self._host, self.originals, self.keeper)

    def tick(
        self, wanted: Mapping[Knob, Value], yielded: Collection[Knob] = ()
    ) -> tuple[tuple[Change, ...], tuple[Outcome, ...]]:
        readings = self.knobs.read(self._targets, self.originals.held)
        self.originals.recognise(readings, self.knobs.inode)
        self.keeper.look(readings)
        plan = {knob: Setting(knob, value, "test", "") for knob, value in wanted.items()}
        changes = diff(plan, readings, yielded)
        outcomes = self._hands.write(changes, cast(Decision, SimpleNamespace(shaping=None)))
        loop = cast(Loop, SimpleNamespace(_originals=self.originals, _host=self._host, _hands=self._hands))
        Loop._forget_others(loop, readings, plan, yielded)
        self.keeper.follow(outcomes)
        return changes, outcomes

    def close(self) -> None:
        self.knobs.close()
        self.originals.close()
