"""The StatsD sockets: datagrams in, samples of pods out.

    prefix of one pod                    that pod's, unless a process of another pod sent it
    prefix that several pods have        that of the sender, as far as a unix socket tells it

Invariant: so many lines a second are looked at and no more; who sends is never made to wait for the agent's
loop, and what a process of one pod sends tells of no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, MutableMapping

from nodeagent.apps.directory import CgroupOf, Directory
from nodeagent.apps.statsd import Heard, Sample, parsed
from nodeagent.apps.targets import Key, Target
from nodeagent.model.app import AppSettings
from nodeagent.model.errors import Failed
from nodeagent.model.symptom import AppReading

DATAGRAM_BYTES = 8192
AT_ONCE = 64  # datagrams, before others have their turn
RECEIVE_BYTES = 1 << 20
MODE = 0o622  # whoever may come near it may write
SENDER_S = 2.0  # so long a process is believed to be where it was
MAX_SENDERS = 1024
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size)


class Sockets:
    """Those of the configuration; `close` them. Failed where one cannot be had."""

    def __init__(self, settings: AppSettings) -> None:
        self.open: list[socket.socket] = []
        self._path = settings.statsd_socket
        try:
            if self._path:
                self.open.append(_unix(self._path))
            if settings.statsd_udp:
                self.open.append(_udp(settings.statsd_udp))
        except OSError as error:
            self.close()
            raise Failed(
                f"StatsD: {error.strerror or error}", "app_signals.statsd_socket, .statsd_udp"
            ) from None

    def close(self) -> None:
        """The file goes, too."""
        for each in self.open:
            if each.family == socket.AF_UNIX:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
            each.close()
        self.open.clear()


class Listener:
    """Hears on the event loop that it is started on. `dropped` counts lines that had no effect, by reason."""

    def __init__(
        self, settings: AppSettings, readings: MutableMapping[Key, AppReading], cgroup_of: CgroupOf
    ) -> None:
        self.dropped = {"rate": 0, "garbled": 0, "unknown": 0, "foreign": 0}
        self._readings = readings
        self._cgroup_of = cgroup_of
        self._per_s = settings.statsd_lines_per_s
        self._left, self._filled_at = float(self._per_s), time.monotonic()
        self._heard: dict[Key, Heard] = {}
        self._targets: dict[Key, Target] = {}
        self._prefixes: dict[str, list[Target]] = {}
        self._directory = Directory()
        self._senders: dict[int, tuple[float, Key | None]] = {}

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """From now on, until the event loop ends."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            loop.add_reader(each, self._receive, each)

    def want(self, targets: Iterable[Target], directory: Directory) -> None:
        """Hear these, and forget the others."""
        self._targets = {target.key: target for target in targets if target.statsd}
        known, self._heard = self._heard, {}
        for key, target in self._targets.items():
            same = key in known and known[key].target == target
            self._heard[key] = known[key] if same else Heard(target, time.monotonic())
        self._prefixes = {}
        for target in self._targets.values():
            self._prefixes.setdefault(target.statsd, []).append(target)
        self._directory, self._senders = directory, {}

    def tell(self, at: float) -> None:
        """Publish what is due; to be called every now and then."""
        for key, heard in self._heard.items():
            if heard.due(at) and (told := heard.told(at)) is not None:
                self._readings[key] = told

    def _receive(self, source: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                data, ancillary, flags, _ = source.recvmsg(DATAGRAM_BYTES, _ANCILLARY)
            except (BlockingIOError, InterruptedError):
                return
            lines = data.split(b"\n")
            if flags & socket.MSG_TRUNC or not self._may(len(lines)):
                self.dropped["rate"] += len(lines)
                continue
            pid = next((_pid(each[2]) for each in ancillary if each[1] == socket.SCM_CREDENTIALS), 0)
            for line in filter(None, lines):
                self._line(line, pid)

    def _line(self, line: bytes, pid: int) -> None:
        sample = parsed(line)
        if sample is None:
            self.dropped["garbled"] += 1
            return
        found = self._among(sample)
        sender = self._sender(pid) if found and pid else None
        if sender is not None:
            found = [each for each in found if each.key == sender]
            if not found:
                self.dropped["foreign"] += 1
                return
        if len(found) != 1:
            self.dropped["unknown"] += 1
            return
        self._heard[found[0].key].take(sample)

    def _among(self, sample: Sample) -> list[Target]:
        """Who has the longest prefix that fits."""
        prefix = sample.name
        while prefix := prefix.rpartition(".")[0]:
            if prefix in self._prefixes:
                return self._prefixes[prefix]
        return []

    def _sender(self, pid: int) -> Key | None:
        """The pod that the process is in."""
        now = time.monotonic()
        known = self._senders.get(pid)
        if known is None or now - known[0] > SENDER_S:
            if len(self._senders) >= MAX_SENDERS:
                self._senders.clear()
            spec = self._directory.of(self._cgroup_of(pid))
            known = self._senders[pid] = now, None if spec is None else (spec.uid, spec.inode)
        return known[1]

    def _may(self, lines: int) -> bool:
        now = time.monotonic()
        self._left = min(self._per_s, self._left + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._left < lines:
            return False
        self._left -= lines
        return True


def _unix(path: str) -> socket.socket:
    """It has its mode before it has its name, and takes the place of one on which nobody hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            pass
        else:
            raise OSError(f"{path}: somebody hears there already")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".statsd-", dir=os.path.dirname(path)) as private:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            bound.bind(f"{private}/s")
            os.chmod(f"{private}/s", MODE)
            os.rename(f"{private}/s", path)
        except OSError:
            bound.close()
            raise
    return bound


def _udp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        bound.bind((host.strip("[]"), int(port)))
    except OSError:
        bound.close()
        raise
    return bound


def _pid(data: bytes) -> int:
    return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0])
