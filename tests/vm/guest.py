"""Commands in a running guest: their output as it comes, their exit code, and what QEMU itself can be told.

Invariant: hanging up ends the command in the guest, so neither a dead client nor a time limit leaves one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.vm.host import VmError, say
from tests.vm.machine import PORT_NAME
from tests.vm.root import PORTS

TIMED_OUT = 124
CHUNK_BYTES = 1 << 18


class Stream(Protocol):
    """Where output goes."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


def alive(home: Path) -> int | None:
    """The pid of the machine that lives there (QEMU's, or that of `timeout` above it), if it still runs."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((home / "pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        ours = not cmdline or f"{PORT_NAME}-{home.name}".encode() in cmdline.split(b"\0")
        if state != "Z" and ours:  # an empty cmdline: in the middle of its exec
            return pid
    return None


class Guest:
    """A running machine, by the directory that it lives in."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        out: Stream | None = None,
    ) -> int:
        """Run argv as root; its exit code, 124 at the time limit. Output goes to `out`, else to our own."""
        ident, deadline = os.urandom(8).hex(), time.monotonic() + timeout_s
        request = {"id": ident, "argv": list(argv), "env": dict(env or {}), "cwd": cwd}
        with self._channel() as channel:
            channel.sendall(b"\n" + json.dumps(request).encode() + b"\n")
            for kind, data in self._frames(channel, f"\0EXEC {ident}\n".encode(), deadline):
                if kind == b"x":
                    code: int = struct.unpack(">i", data)[0]
                    return code
                stream = out or (sys.stdout.buffer if kind == b"o" else sys.stderr.buffer)
                stream.write(data)
                stream.flush()
        say(f"time limit of {timeout_s:g} s reached: {' '.join(argv)[:200]}")
        return TIMED_OUT

    @contextlib.contextmanager
    def _channel(self, wait_s: float = 10.0) -> Iterator[socket.socket]:
        """A connection to the first port that nobody uses."""
        deadline = time.monotonic() + wait_s
        while alive(self.home) and time.monotonic() < deadline:
            for number in range(PORTS):
                with (
                    (self.home / f"lock.{number}").open("w") as lock,
                    socket.socket(socket.AF_UNIX) as channel,
                ):
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        channel.connect(str(self.home / f"agent.{number}"))
                    except OSError:
                        continue
                    yield channel
                    return
            time.sleep(0.05)
        raise VmError(
            f"all {PORTS} ports are in use" if alive(self.home) else f"no machine {self.home.name} runs"
        )

    def _frames(
        self, channel: socket.socket, marker: bytes, deadline: float
    ) -> Iterator[tuple[bytes, bytes]]:
        """What the guest says after the marker, until the deadline; before it is an earlier client's."""
        buffer, begun = b"", False
        while time.monotonic() < deadline:
            if not select.select([channel], [], [], 0.5)[0]:
                if not alive(self.home):
                    raise VmError("the machine went away")
                continue
            data = channel.recv(CHUNK_BYTES)
            if not data:
                raise VmError("the machine went away")
            buffer += data
            if not begun:
                _, begun_with, rest = buffer.partition(marker)
                begun, buffer = bool(begun_with), rest if begun_with else buffer
            while begun and len(buffer) >= 5 + (size := _size(buffer)):
                yield buffer[:1], buffer[5 : 5 + size]
                buffer = buffer[5 + size :]

    def qmp(self, command: str, **arguments: object) -> None:
        """One command of QEMU's own (set_link pulls and plugs a cable); VmError when it refuses."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(self.home / "qmp"))
            lines = channel.makefile("rw")
            lines.readline()  # the greeting
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                answer: dict[str, object] = {}
                while not answer.keys() & {"return", "error"}:  # events come in between
                    answer = json.loads(lines.readline())
                if "error" in answer:
                    raise VmError(f"{command}: {answer['error']}")


def _size(buffer: bytes) -> int:
    """The length of the frame's data; too long to be there when not even its head is."""
    size: int = struct.unpack_from(">I", buffer, 1)[0] if len(buffer) >= 5 else 1 << 32
    return size
