"""Controllers that do not behave: the agent never waits for them, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from structlog.typing import EventDict

from nodeagent.rpc import keepalive, stream
from tests.unit.collectors import SMALL_WINDOW, Collector, collecting, linked
from tests.unit.rpc_clients import eventually, offering


@contextmanager
def lost_logs() -> Iterator[list[str]]:
    """The reasons of link.lost and link.failed so far."""
    whys: list[str] = []

    def keep(_logger: object, _method: str, event: EventDict) -> EventDict:
        if event["event"] in ("link.lost", "link.failed"):
            whys.append(event["why"])
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    try:
        yield whys
    finally:
        structlog.configure(**before)


def test_a_listener_that_never_answers_costs_one_connection_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "CONNECT_S", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as hole, lost_logs() as whys:
        with linked(f"127.0.0.1:{hole.getsockname()[1]}") as link:
            worst_s = 0.0
            for seq in range(1, 200):
                begin = time.perf_counter()
                link.publish(offering(seq, float(seq)))
                worst_s = max(worst_s, time.perf_counter() - begin)
            assert eventually(lambda: len(whys) >= 3)
            assert not link.seen().connected
        assert set(whys) == {"no connection for 0.3 s"}
        assert worst_s < 0.1


def test_a_controller_that_never_reads_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream, "WRITE_S", 0.5)
    at, deaf = f"unix:{tmp_path}/c.sock", Collector()
    deaf.open.clear()
    with collecting(at, deaf, **SMALL_WINDOW), lost_logs() as whys, linked(at) as link:
        link.publish(offering(1, 1.0, source="x" * 500_000))
        assert eventually(lambda: len(whys) >= 2)
    assert whys[0] == "the controller has read nothing for 0.5 s"


def test_a_server_that_speaks_no_http2_is_told_of() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server, lost_logs() as whys:
        threading.Thread(target=speak_http1, args=(server,), daemon=True).start()
        with linked(f"127.0.0.1:{server.getsockname()[1]}") as link:
            link.publish(offering(1, 1.0))
            assert eventually(lambda: len(whys) >= 2)
        assert whys[0].startswith("UNAVAILABLE: ")


def test_garbage_from_the_controller_ends_that_stream(tmp_path: Path) -> None:
    with (
        raw_server(f"unix:{tmp_path}/c.sock", b"\xff\xff\xff") as address,
        lost_logs() as whys,
        linked(address) as link,
    ):
        link.publish(offering(1, 1.0))
        assert eventually(lambda: len(whys) >= 2)
    assert whys[0] == "the controller sent what is no nodeagent.v1.ReportResponse"


def test_a_message_that_is_too_large_ends_that_stream(tmp_path: Path) -> None:
    with (
        raw_server(f"unix:{tmp_path}/c.sock", b"\0" * 100_000) as address,
        lost_logs() as whys,
        linked(address) as link,
    ):
        link.publish(offering(1, 1.0))
        assert eventually(lambda: len(whys) >= 2)
    assert whys[0].startswith("RESOURCE_EXHAUSTED: ")


def test_a_message_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    unknown = b"\x7a\x01x"  # field 15
    with (
        raw_server(f"unix:{tmp_path}/c.sock", unknown, b"") as address,
        lost_logs() as whys,
        linked(address) as link,
    ):
        link.publish(offering(1, 1.0))
        assert eventually(lambda: link.seen().connected)
        assert eventually(lambda: link.seen().sent["heartbeat"] >= 2)
        assert whys == []


def test_a_server_without_collector_is_told_of(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{tmp_path}/c.sock")
    server.start()
    try:
        with lost_logs() as whys, linked(f"unix:{tmp_path}/c.sock") as link:
            link.publish(offering(1, 1.0))
            assert eventually(lambda: any(why.startswith("UNIMPLEMENTED: ") for why in whys))
            assert link.seen().connects == 0
    finally:
        server.stop(0.0)


def test_a_network_that_goes_dark_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "PING_S", 1.0)
    monkeypatch.setattr(keepalive, "PONG_S", 1.0)
    patient: dict[str, Any] = {"http2.min_ping_interval_without_data_ms": 100}
    with (
        collecting("127.0.0.1:0", **patient) as (collector, address),
        forwarding(address) as (through, dark),
        lost_logs() as whys,
        linked(through) as link,
    ):
        link.publish(offering(1, 1.0))
        assert eventually(lambda: link.seen().connected)
        dark.set()
        assert eventually(lambda: len(whys) >= 1)
        assert not link.seen().connected
        dark.clear()
        assert eventually(lambda: link.seen().connected)
    assert len(collector.streams) >= 2
    assert "ping" in whys[0] or "keepalive" in whys[0].lower()


def test_a_controller_that_wants_fewer_pings_gets_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "PING_S", 0.3)
    # a server that probes the bandwidth sends so much by itself that the agent hardly pings
    with (
        collecting("127.0.0.1:0", **SMALL_WINDOW) as (_, address),
        lost_logs() as whys,
        linked(address, heartbeat_s=60.0) as link,
    ):
        link.publish(offering(1, 1.0, valid_s=600.0))
        assert eventually(lambda: len(whys) == 1)  # after three pings
        assert eventually(lambda: link.seen().connects == 2)
        time.sleep(2.0)  # six of the former intervals
        assert link.seen().connected and len(whys) == 1, whys
    assert whys[0] == "UNAVAILABLE: Too many pings"


def test_a_server_that_flaps_leaves_no_descriptors_threads_or_tasks(tmp_path: Path) -> None:
    at = f"unix:{tmp_path}/c.sock"
    with linked(at, backoff_s=0.05, backoff_max_s=0.1) as link:
        link.publish(offering(1, 3.0))
        counts: list[tuple[int, int, int]] = []
        for number in range(40):
            with collecting(at) as (collector, _):
                assert eventually(lambda here=collector: bool(here.streams))  # type: ignore[misc]
                link.publish(offering(number, float(number)))
            if number in (9, 39):
                assert eventually(lambda: not link.seen().connected)
                counts.append(settled_counts(*counts))
        assert link.seen().losses >= 40
    (fds, threads, tasks), (fds_later, threads_later, tasks_later) = counts
    assert fds_later <= fds + 2
    assert threads_later <= threads + 2
    assert tasks_later <= tasks + 2


def settled_counts(enough: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
    """The least number of descriptors, threads and asyncio objects within three seconds.

    While they are more than `enough`, within fifteen: on a full machine what has ended takes its time to go.
    """
    least = (10**9,) * 3
    for number in range(300 if any(enough) else 60):
        if number >= 60 and all(found <= most for found, most in zip(least, enough, strict=True)):
            break
        gc.collect()
        kinds = sum(
            type(each).__name__ in ("Task", "StreamStreamCall", "_AioCall") for each in gc.get_objects()
        )
        now = (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), kinds)
        least = (min(least[0], now[0]), min(least[1], now[1]), min(least[2], now[2]))
        time.sleep(0.05)
    return least


def speak_http1(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@contextmanager
def raw_server(address: str, *messages: bytes) -> Iterator[str]:
    """Answers each stream with these bytes, then reads on."""

    def report(requests: Iterator[bytes], _context: object) -> Iterator[bytes]:
        yield from messages
        for _ in requests:
            pass

    handlers = {"Report": grpc.stream_stream_rpc_method_handler(report)}
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("nodeagent.v1.Collector", handlers),)
    )
    server.add_insecure_port(address)
    server.start()
    try:
        yield address
    finally:
        server.stop(0.0)


@contextmanager
def forwarding(address: str) -> Iterator[tuple[str, threading.Event]]:
    """A TCP proxy that takes everything and passes nothing on while the event is set."""
    dark = threading.Event()
    host, _, port = address.rpartition(":")

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            try:
                while data := source.recv(65536):
                    if not dark.is_set():
                        sink.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((host, int(port)))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", dark
