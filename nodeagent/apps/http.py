"""One GET of one literal address, bounded in time and size.

Invariant: nothing is resolved, followed, decompressed or sent by way of a proxy; what of the answer is in
memory at a time is no more than two buffers.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from nodeagent.model.errors import AgentError, Failed, Garbled, Refused

BUFFER_BYTES = 64 << 10
MAX_HEADERS = 100
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([ -~]*))?\r?\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_READ = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_LISTEN = "does it listen there, on an address that the agent reaches?"


class Place(NamedTuple):
    """`host` is a literal address; whoever makes one has seen that it may be asked."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """ADDRESS:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}{self.path}"


async def fetch(place: Place, feed: Callable[[bytes], None], *, timeout_s: float, max_bytes: int) -> None:
    """Give the body to `feed`, in pieces as they come; AgentError, which names the place."""
    try:
        async with asyncio.timeout(timeout_s):
            await _fetch(place, feed, max_bytes)
    except TimeoutError:
        raise Failed(f"{place}: no whole answer within {timeout_s:g} s") from None
    except AgentError as error:
        raise type(error)(f"{place}: {error}", error.hint) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)  # asyncio has words of its own
        raise Failed(f"{place}: {why}", _LISTEN) from None
    except (ValueError, EOFError):  # a line longer than the buffer; an end before the end
        raise Garbled(f"{place}: not HTTP") from None


async def _fetch(place: Place, feed: Callable[[bytes], None], max_bytes: int) -> None:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    reader, writer = await asyncio.open_connection(
        place.host, place.port, family=family, flags=socket.AI_NUMERICHOST, limit=BUFFER_BYTES
    )
    try:
        writer.write(
            f"GET {place.path} HTTP/1.1\r\nHost: {place.authority}\r\nUser-Agent: nodeagent\r\n"
            "Accept: text/plain;version=0.0.4, */*;q=0.1\r\nAccept-Encoding: identity\r\n"
            "Connection: close\r\n\r\n".encode("ascii")
        )
        size = 0
        async for piece in _body(reader, await _headers(reader), max_bytes):
            size += len(piece)
            if size > max_bytes:
                raise Refused(f"longer than {max_bytes} bytes", "app_signals.max_bytes; or tell less there")
            feed(piece)
    finally:
        writer.transport.abort()


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    """Of an answer that is 200 and plain."""
    status = _STATUS.fullmatch(await reader.readline())
    if status is None:
        raise Garbled("not HTTP")
    if status[1] != b"200":
        told = f"{status[1].decode()} {(status[2] or b'').decode()}".strip()
        raise Refused(told[:80], "redirects are not followed" if status[1].startswith(b"3") else "")
    found: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = await reader.readline()
        if line in (b"\r\n", b"\n"):
            break
        header = _HEADER.fullmatch(line)
        if header is None:
            raise Garbled("not HTTP")
        if (name := header[1].decode().lower()) in _READ:
            found[name] = header[2].decode("latin-1").lower()
    else:
        raise Garbled(f"more than {MAX_HEADERS} headers")
    if found.get("content-encoding", "identity") != "identity":
        raise Refused("its answer is compressed, though that was not asked for")
    return found


async def _body(
    reader: asyncio.StreamReader, headers: dict[str, str], max_bytes: int
) -> AsyncIterator[bytes]:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding != "chunked":
            raise Garbled("not HTTP")
        async for piece in _chunks(reader):
            yield piece
    elif length is None:
        while piece := await reader.read(BUFFER_BYTES):
            yield piece
    elif not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Garbled("not HTTP")
    elif int(length) > max_bytes:
        raise Refused(f"announces {length} bytes, more than {max_bytes}", "app_signals.max_bytes")
    else:
        async for piece in _exactly(reader, int(length)):
            yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """RFC 9112, 7.1; trailers are not read."""
    while size := int((await reader.readline()).partition(b";")[0].strip(), 16):
        if size < 0:
            raise Garbled("not HTTP")
        async for piece in _exactly(reader, size):
            yield piece
        if await reader.readline() not in (b"\r\n", b"\n"):
            raise Garbled("not HTTP")


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, BUFFER_BYTES))
        if not piece:
            raise Garbled(f"ends {size} bytes early")
        size -= len(piece)
        yield piece
