"""The HTTP server for real, with clients that are slow, silent, many or wrong."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection

import pytest

from nodeagent.model.errors import Failed, Misconfigured
from nodeagent.report import http
from nodeagent.report.http import HttpServer
from nodeagent.report.metrics import Metrics, OwnCost
from tests.unit import samples
from tests.unit.rpc_clients import has_ipv6_loopback


@contextmanager
def serving(server: HttpServer) -> Iterator[HttpServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with serving(HttpServer("127.0.0.1:0", lambda: b"page\n")) as running:
        yield running


def get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def connect(server: HttpServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=20.0)


def received(connection: socket.socket) -> bytes:
    """All that the server sends until it hangs up."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data


def test_a_scrape_gets_the_latest_tick() -> None:
    metrics = Metrics("0.1")
    with serving(HttpServer("127.0.0.1:0", metrics.render)) as server:
        for seq, pods in ((1, 4), (2, 6)):
            metrics.observe_tick(samples.tick(seq, pods=pods), 0.001, OwnCost(0.1, None))
            status, text = get(server, "/metrics")
            assert status == 200
            assert text.count("nodeagent_pod_cpu_usage_seconds_total{") == pods


def test_the_page_says_what_it_is(server: HttpServer) -> None:
    host, _, port = server.address.rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=10.0)
    connection.request("GET", "/metrics?debug=1")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.getheader("Content-Length") == "5"
    assert answer.read() == b"page\n"
    assert "Python" not in (answer.getheader("Server") or "")


def test_ready_from_the_first_complete_tick_on(server: HttpServer) -> None:
    assert get(server, "/readyz")[0] == 503
    server.tick_finished(complete=False)
    assert get(server, "/readyz")[0] == 503
    server.tick_finished()
    assert get(server, "/readyz") == (200, "ok\n")
    server.tick_finished(complete=False)
    assert get(server, "/readyz")[0] == 200


def test_alive_while_ticks_finish_and_stalled_when_the_last_is_too_old(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.tick_finished()
    status, text = get(server, "/livez")
    assert (status, text[:2]) == (200, "ok")
    assert "limit 10 s" in text
    monkeypatch.setattr(server, "_last", time.monotonic() - 10.5)
    status, text = get(server, "/livez")
    assert status == 503
    assert text.startswith("stalled: last tick 10.5 s ago")
    server.tick_finished(complete=False)
    assert get(server, "/livez")[0] == 200


def test_long_ticks_are_given_more_time() -> None:
    with serving(HttpServer("127.0.0.1:0", lambda: b"", tick_s=10.0)) as server:
        assert "limit 50 s" in get(server, "/livez")[1]


def test_other_paths_and_methods_are_refused(server: HttpServer) -> None:
    assert get(server, "/none")[0] == 404
    assert "/metrics" in get(server, "/")[1]
    assert get(server, "/metrics", "HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE", "BREW"):
        assert get(server, "/metrics", method)[0] == 501


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"GET /" + b"a" * 9000, b" 431 "),
        (b"GET / HTTP/1.1\r\nX: " + b"b" * 9000, b" 431 "),
        (b"\x00\xff\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b" 505 "),
        (b"\r\n\r\n", b""),
    ],
    ids=["long line", "long header", "binary", "version", "empty"],
)
def test_a_bad_request_gets_its_answer_and_the_next_is_served(
    server: HttpServer, request_bytes: bytes, answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connect(server) as client:
        client.sendall(request_bytes)
        assert answer in received(client)
    assert get(server, "/metrics") == (200, "page\n")
    assert capfd.readouterr() == ("", "")  # a client cannot fill the agent's log


def test_silent_clients_are_bounded_and_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        http, "TIMEOUT_S", 2.0
    )  # all are there before the first is hung up on, on a busy machine too
    with serving(HttpServer("127.0.0.1:0", lambda: b"page\n")) as server, ExitStack() as stack:
        before = threading.active_count()
        silent = [stack.enter_context(connect(server)) for _ in range(http.MAX_CONNECTIONS)]
        silent[0].sendall(b"GET /metr")
        wait_for_threads(before + http.MAX_CONNECTIONS)
        with connect(server) as one_more:
            assert b" 503 " in received(one_more)
        start = time.monotonic()
        server.tick_finished()
        assert time.monotonic() - start < 0.1
        assert [received(each) for each in silent] == [b""] * len(silent)
        wait_for_threads(before)
        assert get(server, "/metrics") == (200, "page\n")


def test_a_client_that_sends_byte_by_byte_has_the_same_time_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.5)
    with serving(HttpServer("127.0.0.1:0", lambda: b"page\n")) as server, connect(server) as client:
        start = time.monotonic()
        client.settimeout(0.05)  # the pace of its bytes
        while not hung_up(client):
            with suppress(ConnectionError):
                client.sendall(b"a")
            assert time.monotonic() - start < 5.0


def test_a_client_that_does_not_read_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.3)
    size = 64 << 20  # more than the kernel buffers
    with serving(HttpServer("127.0.0.1:0", lambda: b"x" * size)) as server, connect(server) as client:
        before = threading.active_count()
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        wait_for_threads(before)
        assert len(received(client)) < size


def test_a_page_that_fails_is_reported_not_swallowed(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> bytes:
        raise ZeroDivisionError("a bug")

    with serving(HttpServer("127.0.0.1:0", broken)) as server:
        before = threading.active_count()
        with connect(server) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert received(client) == b""
        wait_for_threads(before)
        assert get(server, "/")[0] == 200
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def test_a_port_in_use_fails_with_a_hint_and_is_free_again_after_stop() -> None:
    with serving(HttpServer("127.0.0.1:0", lambda: b"1")) as first:
        with pytest.raises(Failed, match="in use") as caught:
            HttpServer(first.address, lambda: b"2").start()
        assert caught.value.hint
        assert get(first, "/metrics")[1] == "1"
    with serving(HttpServer(first.address, lambda: b"3")) as again:
        assert get(again, "/metrics")[1] == "3"


def test_stop_leaves_no_thread() -> None:
    with serving(HttpServer("127.0.0.1:0", lambda: b"")):
        assert "http" in {thread.name for thread in threading.enumerate()}
    assert "http" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("address", ["localhost:0", "[::1]:0", "127.8.8.8:0"])
def test_any_local_address_will_do(address: str) -> None:
    if address.startswith("[") and not has_ipv6_loopback():
        pytest.skip("no IPv6 loopback on this machine")
    with serving(HttpServer(address, lambda: b"page\n")) as server:
        assert get(server, "/metrics") == (200, "page\n")


@pytest.mark.parametrize(
    "address", ["", "9464", "example.org:9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000"]
)
def test_a_bad_address_is_a_mistake_in_the_configuration(address: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        HttpServer(address, lambda: b"")
    assert caught.value.hint


def wait_for_threads(count: int) -> None:
    end = time.monotonic() + 10.0
    while threading.active_count() != count:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)


def hung_up(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
