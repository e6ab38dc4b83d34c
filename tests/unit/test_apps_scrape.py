"""Scrapes of real servers on loopback: what comes of good ones; bad ones cost little and tell why."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nodeagent.config import load
from nodeagent.core.apps import latency_s
from nodeagent.doctor import examine
from nodeagent.doctor.apps import endpoints
from nodeagent.model.app import AppFigures, AppRule, AppWish
from nodeagent.model.pod import Member, Qos
from nodeagent.model.symptom import AppReading, Slo
from nodeagent.report.apps import apps_text
from tests.live.running import until
from tests.unit.endpoints import (
    Answer,
    Endpoint,
    Rising,
    app_of,
    applications,
    endpoint,
    histogram,
    page,
    pod,
    sends,
)

SEARCH = pod("search")


def rule(server: Endpoint | None, host: str = "127.0.0.1", **fields: Any) -> AppRule:
    url = "" if server is None else f"http://{host}:{server.port}/metrics"
    return AppRule(match="**", metrics=url, latency_histogram="w", period_s=0.5, **fields)


def told(server: Endpoint, **settings: Any) -> AppReading:
    """What is known once something is known, or why it is not."""
    found: list[AppReading] = []

    def known() -> bool:
        app = app_of(running, SEARCH, time.monotonic())
        if app is not None and (app.at is not None or app.error):
            found.append(app)
        return bool(found)

    with applications((SEARCH,), rule(server, slo="p99 <= 20ms"), **settings) as running:
        until(known, "a reading")
    return found[-1]


def test_latency_and_requests_are_those_between_two_scrapes() -> None:
    with endpoint(Rising(990, 20, 0)) as server:
        app = told(server)
        request = server.requests[0]
    assert (app.source, app.error, app.slo) == ("prometheus", "", Slo(0.99, 0.02))
    assert app.requests == app.window_requests == 1010
    quantiles = dict(app.latency_s)
    assert quantiles[0.5] == pytest.approx(0.01 * 505 / 990)
    assert quantiles[0.99] == pytest.approx(0.01 + 0.09 * (0.99 * 1010 - 990) / 20)
    assert 0.3 < app.window_s < 2.0 and app.stale_after_s == 1.5
    assert b"GET /metrics HTTP/1.1\r\n" in request and b"Accept-Encoding: identity\r\n" in request


def test_of_too_few_requests_the_tail_is_unknown_until_the_window_has_grown() -> None:
    with endpoint(Rising(100, 0, 0)) as server, applications((SEARCH,), rule(server)) as running:
        seen: list[AppReading] = []

        def grown() -> bool:
            app = app_of(running, SEARCH, time.monotonic())
            if app is not None and app.at is not None and (not seen or seen[-1] != app):
                seen.append(app)
            return bool(seen) and 0.99 in dict(seen[-1].latency_s)

        until(grown, "three slices")
    assert [each.window_requests for each in seen] == [100, 200, 300]
    assert [latency_s(each, each.at or 0.0, 0.99) is None for each in seen] == [True, True, False]


def test_a_counter_that_falls_began_anew() -> None:
    answers = [histogram((400, 400, 400)), histogram((500, 500, 500)), histogram((7, 10, 40))]

    def restarting(connection: socket.socket, _ended: threading.Event) -> None:
        connection.sendall(page(answers.pop(0) if len(answers) > 1 else answers[0]))

    with endpoint(restarting) as server, applications((SEARCH,), rule(server)) as running:

        def requests() -> int:
            app = app_of(running, SEARCH, time.monotonic())
            return -1 if app is None or app.requests is None else app.requests

        until(lambda: requests() == 140, "100 before and 40 since the restart")


def endless(connection: socket.socket, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not ended.is_set():
        connection.sendall(b"# nothing\n" * 1000)


def dripping(connection: socket.socket, ended: threading.Event) -> None:
    for byte in page(histogram((1, 2, 3))):
        connection.sendall(bytes((byte,)))
        if ended.wait(0.05):
            return


def silent(_connection: socket.socket, ended: threading.Event) -> None:
    ended.wait(30.0)


BODY = histogram((1, 2, 3))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (silent, "no whole answer within 0.3 s"),
        (dripping, "no whole answer within 0.3 s"),
        (endless, "longer than 65536 bytes"),
        (sends(page(b"#" * 70_000)), "announces 70000 bytes, more than 65536"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"), "announces 9999999999 bytes"),
        (sends(page(gzip.compress(BODY), b"Content-Encoding: gzip")), "compressed"),
        (
            sends(page(b"", b"Location: http://127.0.0.1:1/", status=b"302 Found")),
            "redirects are not followed",
        ),
        (sends(page(BODY, status=b"500 Oh")), "500 Oh"),
        (sends(b"SSH-2.0-OpenSSH\r\n"), "not HTTP"),
        (sends(b""), "not HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200), "more than 100 headers"),
        (sends(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000), "not HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "not HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + BODY[:10]), "bytes early"),
        (sends(CHUNKED + b"ZZ\r\n"), "not HTTP"),
        (sends(CHUNKED + b"-5\r\n"), "not HTTP"),
        (sends(CHUNKED + b"fffffff\r\n" + b"#" * 70_000), "longer than 65536 bytes"),
        (sends(page(b"<html>hello</html>")), "no series of w_bucket"),
        (sends(page(b"\xff\x00" * 500 + b"\nw_bucket{\xff} 3\n")), "no sample"),
    ],
)
def test_a_bad_endpoint_is_unknown_and_tells_why(answer: Answer, why: str) -> None:
    with endpoint(answer) as server:
        app = told(server, timeout_s=0.3, max_bytes=65536)
        assert app.at is None and not app.latency_s and app.requests is None
        assert why in app.error and f"http://127.0.0.1:{server.port}/metrics" in app.error


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"%x;a=b\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
        b"HTTP/1.0 200\r\n\r\n" + BODY,
        page(BODY.removesuffix(b"\n"), b"content-encoding: identity"),
    ],
    ids=["chunked", "byte by byte", "until it hangs up", "no last newline"],
)
def test_every_form_of_an_answer_is_read(answer: bytes) -> None:
    with endpoint(sends(answer)) as server:
        assert told(server).error == ""


def test_nobody_listens_is_told_with_a_hint() -> None:
    with endpoint(silent) as server:
        pass
    assert "refused (does it listen there" in told(server).error


def test_many_slow_endpoints_hold_up_no_other() -> None:
    slow = [pod(f"slow-{n}") for n in range(20)]
    with endpoint(silent) as bad, endpoint(Rising(500, 0, 0)) as good:
        rules = (
            AppRule("slow-*", f"http://127.0.0.1:{bad.port}/", "w", period_s=0.5),
            rule(good),
        )
        with applications((*slow, SEARCH), *rules) as running:
            until(lambda: (app_of(running, SEARCH, time.monotonic()) or AppReading("")).at is not None, "one")
            began = time.monotonic()
            for _ in range(50):
                app_of(running, SEARCH, began)
                running.sync((*slow, SEARCH))
            assert time.monotonic() - began < 1.0, "the loop waited"


def test_what_was_known_gets_old_when_the_endpoint_dies() -> None:
    with endpoint(Rising(500, 0, 0)) as server, applications((SEARCH,), rule(server)) as running:
        until(lambda: (app_of(running, SEARCH, time.monotonic()) or AppReading("")).at is not None, "one")
        server.close()
        until(lambda: bool((app_of(running, SEARCH, time.monotonic()) or AppReading("")).error), "an error")
        app = app_of(running, SEARCH, time.monotonic())
        assert app is not None and app.at is not None
        assert latency_s(app, app.at + 1.4, 0.99) is not None
        assert latency_s(app, app.at + 1.6, 0.99) is None


def test_a_pod_that_is_gone_is_not_asked_any_more_and_another_one_begins_anew() -> None:
    with endpoint(Rising(500, 0, 0)) as server, applications((SEARCH,), rule(server)) as running:
        until(lambda: (app_of(running, SEARCH, time.monotonic()) or AppReading("")).at is not None, "one")
        again = replace(SEARCH, spec=replace(SEARCH.spec, inode=8))
        running.sync((again,))
        app = app_of(running, again, time.monotonic())
        assert app is None or app.at is None
        running.sync(())
        time.sleep(0.1)
        asked = len(server.requests)
        time.sleep(0.7)
        assert len(server.requests) == asked
        assert app_of(running, again, time.monotonic()) is None


def test_an_empty_host_is_the_pods_own_address() -> None:
    with endpoint(Rising(500, 0, 0), host="127.0.0.7") as server:
        url = f"http://:{server.port}/metrics"
        member = pod("web", app=AppWish(url, "w", addresses=("127.0.0.7",), slo=Slo(0.9, 0.5)))
        with applications((member,)) as running:
            until(lambda: len(server.requests) > 0, "a scrape")
        assert f"Host: 127.0.0.7:{server.port}\r\n".encode() in server.requests[0]
        with applications((member,), annotations=False) as running:
            assert app_of(running, member, 0.0) is None


@pytest.mark.parametrize(
    ("member", "entry", "why"),
    [
        (pod("a"), AppRule("a", "http://:9/", "w"), "address is not known"),
        (pod("a"), AppRule("a", "http://10.0.0.1:9/", "w"), "neither on loopback nor an address of this pod"),
        (pod("a"), AppRule("a", "http://169.254.169.254:80/", "w"), "neither on loopback"),
        (pod("a", app=AppWish("http://127.0.0.1:9/", "w")), AppRule("b"), "neither on loopback"),
        (pod("a"), AppRule("a", "http://127.0.0.1:9/"), "neither a latency histogram nor"),
    ],
)
def test_what_may_not_be_asked_is_not_asked_and_says_why(member: Member, entry: AppRule, why: str) -> None:
    with applications((member,), entry) as running:
        app = app_of(running, member, 0.0)
        assert app is not None and app.at is None and why in app.error
        assert not any(thread.name == "apps" for thread in threading.enumerate())


def test_batch_pods_are_not_asked_and_without_a_target_there_is_no_thread() -> None:
    batch = pod("search", qos=Qos.BATCH)
    with endpoint(Rising(1, 1, 1)) as server, applications((batch,), rule(server)) as running:
        assert app_of(running, batch, 0.0) is None
        assert not any(thread.name == "apps" for thread in threading.enumerate())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with endpoint(Rising(500, 0, 0)) as server:
        assert told(server).error == ""


def test_ipv6_loopback_is_scraped() -> None:
    with (
        endpoint(Rising(500, 0, 0), host="::1") as server,
        applications((SEARCH,), rule(server, "[::1]")) as running,
    ):
        until(lambda: (app_of(running, SEARCH, time.monotonic()) or AppReading("")).at is not None, "one")


def test_the_doctor_asks_once_and_tells_what_it_found(tmp_path: Path) -> None:
    with endpoint(sends(page(BODY))) as good, endpoint(sends(b"")) as bad:
        urls = [f"http://127.0.0.1:{each.port}/" for each in (good, bad)] + ["http://:9121/metrics"]
        entries = [f'[[apps]]\nmatch = "a"\nmetrics = "{url}"\nlatency_histogram = "w"' for url in urls]
        path = tmp_path / "nodeagent.toml"
        path.write_text("\n".join(entries))
        found = examine(load(str(path), env={}), (endpoints,))
    assert [each.status.value for each in found] == ["ok", "warn", "info"]
    assert found[0].found == f"{urls[0]} tells 1 series of w"
    assert "not HTTP" in found[1].found and found[1].fix


def test_scrapes_are_counted_by_result_for_metrics() -> None:
    other = pod("other")
    with endpoint(Rising(1, 1, 1)) as good, endpoint(sends(b"")) as bad:
        rules = (AppRule("search", f"http://127.0.0.1:{good.port}/", "w"), replace(rule(bad), match="other"))
        with applications((SEARCH, other), *rules) as running:
            until(lambda: set(running.figures().scrapes) == {"ok", "error"}, "both results")
            text = apps_text(running.figures())
    assert re.fullmatch(r"(#.*\n){2}nodeagent_app_scrapes_total\{result=\"(ok|error)\"\} \d\n[^#]*", text)
    assert apps_text(AppFigures()) == ""
