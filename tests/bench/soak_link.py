"""The way from the agent to its controller, and the controller: both fail, in all the ways that they can."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from nodeagent.rpc.tls import TlsFiles
from tests.bench.collect import free_port
from tests.unit.collecting import COLLECT

STALL_S = REFUSE_S = 0.4
CHUNK_BYTES = 64 << 10


class Relay:
    """Passes TCP connections on to a port of this host, until it is told to fail."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._to = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._ways = itertools.cycle((self._cut, self._stall, self._refuse, self._end))

    async def open(self) -> None:
        """Let connections in."""
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Let none in, and cut all."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._each(lambda writer: writer.transport.abort())

    async def flap(self) -> str:
        """Fail in the next way of all; its name."""
        way = next(self._ways)
        await way()
        return way.__name__.removeprefix("_")

    async def _cut(self) -> None:
        self._each(lambda writer: writer.transport.abort())

    async def _end(self) -> None:
        """An orderly end of TCP, in the middle of whatever was going on."""
        self._each(lambda writer: writer.close())

    async def _stall(self) -> None:
        """Silence with the connection open, then the end."""
        self._passing.clear()
        await asyncio.sleep(STALL_S)
        self._passing.set()
        await self._cut()

    async def _refuse(self) -> None:
        await self.close()
        await asyncio.sleep(REFUSE_S)
        await self.open()

    def _each(self, end: Callable[[asyncio.StreamWriter], None]) -> None:
        for writer in tuple(self._open):
            end(writer)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            for each in (writer, back):
                self._open.discard(each)
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class ControllerProcess:
    """`nodeagent collect` at ports that stay the same; clients of this host may direct by `control`."""

    def __init__(self, home: Path, files: TlsFiles) -> None:
        self.port, self._http = free_port(), free_port()
        self._log = home / "collect.log"
        tls = zip(("--tls-cert", "--tls-key", "--tls-ca"), files, strict=True)
        self._words = [
            *COLLECT,
            *("--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self._http}"),
            *("--agents", "*.agents.example", "--directors", "reader.example"),
            *(word for pair in tls for word in pair),
        ]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._words, stdout=subprocess.DEVNULL, stderr=log)

    async def restart(self, number: signal.Signals) -> None:
        """End it by this signal, and start it."""
        await self.stop(number)
        self.process = self._start()

    async def freeze(self, seconds: float) -> None:
        """Let it do nothing for so long."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait)
