"""Method calls to systemd over its private socket, one short connection for a batch of them.

The private socket (/run/systemd/private, which systemctl uses as root) needs no message bus and no Hello.
systemd sends all of its signals over each open connection and queues those that are not read, so none is
kept open. D-Bus's messages are made and parsed by jeepney, imported here alone.

Invariant: all calls of a connection together take no longer than its limit; then it is Refused.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported
from nodeagent.units.properties import Property, Raw

SOCKET = "/run/systemd/private"
BOOTED = "/run/systemd/system"  # sd_booted(3)
NAME, ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
INSTALL = "pip install 'nodeagent[systemd]'"
REACHABLE = "run as root; in a container, have the host's /run below agent.host_root"
MAX_LINE_BYTES = 8192
PROPERTIES = "org.freedesktop.DBus.Properties"
_ODD = (ValueError, LookupError, AssertionError, TypeError, AttributeError, struct.error)  # of jeepney
_GONE = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject")
_INTERFACES = {".slice": "Slice", ".service": "Service", ".scope": "Scope"}

P = TypeVar("P")
T = TypeVar("T")


def booted(host_root: str) -> bool:
    """True when systemd is the host's pid 1."""
    return os.path.isdir(f"{host_root.rstrip('/')}{BOOTED}")


def reachable(host_root: str) -> bool:
    """True when systemd is there and can be talked to, as far as that is known without trying."""
    return booted(host_root) and not unusable(host_root)


def unusable(host_root: str) -> str:
    """Why systemd cannot be told anything on its own host, one line; "" when it can, or is not there."""
    if booted(host_root) and importlib.util.find_spec("jeepney") is None:
        return f"no package jeepney: a daemon-reload undoes what is set on units; {INSTALL}"
    return ""


class Bus:
    """An open connection; a context manager. Unsupported without jeepney, else Refused, Gone or Garbled."""

    def __init__(self, host_root: str, limit_s: float) -> None:
        try:
            import jeepney
        except ImportError:
            raise Unsupported("the package jeepney is not installed", hint=INSTALL) from None
        self._lib = jeepney
        self._until = time.monotonic() + limit_s
        self._parser = jeepney.Parser()
        self._serial = 0
        self.broken = False  # True when no further call can be answered, unlike after an error of one call
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._io(self._socket.connect, f"{host_root.rstrip('/')}{SOCKET}")
            self._authenticate()
        except AgentError:
            self.close()
            raise

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def version(self) -> str:
        """systemd's own, as text."""
        found = self._call(ROOT, PROPERTIES, "Get", "ss", (f"{NAME}.Manager", "Version"))
        return str(found[1] if isinstance(found, tuple) else found)

    def unit(self, name: str) -> str:
        """The object of a loaded unit; Gone when it is not loaded."""
        return str(self._call(ROOT, f"{NAME}.Manager", "GetUnit", "s", (name,)))

    def cgroup(self, unit: str, at: str) -> str:
        """The path of the unit's cgroup without the slash before it; empty while it has none."""
        return str(self._get(unit, at, "ControlGroup")).lstrip("/")

    def get(self, unit: str, at: str, prop: Property) -> Raw:
        """What systemd has for a property of the unit whose object is `at`."""
        found = self._get(unit, at, prop.name)
        if prop.type == "t" and isinstance(found, int):
            return found
        if prop.type == "ay" and isinstance(found, bytes):
            return found
        raise Garbled(f"{unit}: {prop.name} is {found!r}")

    def set(self, unit: str, values: Mapping[Property, Raw]) -> None:
        """Set properties until the next boot, and wait until systemd has written them to the cgroup.

        It answers first and writes after, before it looks at anything else: so a second call is answered only
        when all is written (systemd, src/core/manager.c, manager_loop).
        """
        body = [(prop.name, (prop.type, value)) for prop, value in values.items()]
        self._call(ROOT, f"{NAME}.Manager", "SetUnitProperties", "sba(sv)", (unit, True, body))
        self._call(ROOT, "org.freedesktop.DBus.Peer", "Ping")

    def _get(self, unit: str, at: str, name: str) -> object:
        interface = f"{NAME}.{_INTERFACES[unit[unit.rindex('.') :]]}"
        found = self._call(at, PROPERTIES, "Get", "ss", (interface, name))
        return found[1] if isinstance(found, tuple) else found

    def _call(
        self,
        at: str,
        interface: str,
        method: str,
        signature: str | None = None,
        body: tuple[object, ...] = (),
    ) -> object:
        """The first value of the answer, None of an empty one."""
        address = self._lib.DBusAddress(at, NAME, interface)
        self._serial += 1
        try:
            message = self._lib.new_method_call(address, method, signature, body)
            data = message.serialise(serial=self._serial)
        except _ODD as error:
            raise Garbled(f"{method}: {body!r} cannot be said in D-Bus: {error!r}") from None
        self._io(self._socket.sendall, data)
        fields = self._lib.HeaderFields
        while True:
            answer = self._received()
            if answer.header.fields.get(fields.reply_serial) == self._serial:
                break
        if answer.header.message_type is self._lib.MessageType.error:
            name = answer.header.fields.get(fields.error_name, "")
            text = f"systemd: {answer.body[0] if answer.body else name}"
            raise Gone(text) if name in _GONE else Refused(text)
        return answer.body[0] if answer.body else None

    def _received(self) -> Any:
        try:
            while (message := self._parser.get_next_message()) is None:
                self._parser.add_data(self._some())
        except _ODD as error:
            self.broken = True
            raise Garbled(f"systemd's answer is no D-Bus message: {error!r}") from None
        return message

    def _authenticate(self) -> None:
        """All in one piece, as systemctl does.

        A BEGIN of its own may reach systemd together with the first call, which then lies in its buffer while
        it waits for more: the answer never comes.
        """
        from jeepney.auth import BEGIN, make_auth_external

        self._io(self._socket.sendall, b"\0" + make_auth_external() + BEGIN)
        said = b""
        while b"\r\n" not in said and len(said) < MAX_LINE_BYTES:
            said += self._some()
        line, _, rest = said.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise Refused(f"systemd does not talk to uid {os.getuid()}: {line[:80]!r}", hint=REACHABLE)
        self._parser.add_data(rest)

    def _some(self) -> bytes:
        data = self._io(self._socket.recv, 65536)
        if not data:
            self.broken = True
            raise Refused("systemd has hung up")
        return data

    def _io(self, call: Callable[[P], T], argument: P) -> T:
        left_s = self._until - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            return call(argument)
        except TimeoutError:
            self.broken = True
            raise Refused("systemd does not answer in time") from None
        except OSError as error:
            self.broken = True
            raise Refused(f"{SOCKET}: {error.strerror}", hint=REACHABLE) from error
