"""GET /pods over real sockets and real TLS: trusted, renewed, wrong, slow, too long."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.model.errors import AgentError, Failed, Garbled, Refused
from nodeagent.model.kubernetes import KubernetesSettings
from nodeagent.pods.kubelet import MAX_ANSWER_BYTES, KubeletClient, kubelet_url, unverified
from tests.unit.kubelet_samples import V1_34
from tests.unit.kubelet_server import TOKEN, Certificates, Kubelet, kubelet

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def settings(home: Path, **more: object) -> KubernetesSettings:
    token = home / "token"
    if not token.exists():
        token.write_text(f"{TOKEN}\n")
    values = {"token_file": str(token), "ca_file": str(home / "ca.crt"), "timeout_s": 5.0, **more}
    return KubernetesSettings(**values)  # type: ignore[arg-type]


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Kubelet]:
    with kubelet(Certificates(tmp_path).server()) as server:
        yield server


@pytest.fixture
def plain() -> Iterator[Kubelet]:
    with kubelet() as server:
        yield server


def failure(client: KubeletClient) -> AgentError:
    with pytest.raises(AgentError) as caught:
        client.fetch()
    assert TOKEN not in f"{caught.value} {caught.value.hint}"
    return caught.value


@needs_openssl
def test_pods_over_https_with_token_and_authority(secure: Kubelet, tmp_path: Path) -> None:
    secure.body = V1_34
    assert KubeletClient(secure.url, settings(tmp_path)).fetch() == V1_34
    assert secure.tokens == [f"Bearer {TOKEN}"]


@needs_openssl
def test_a_token_that_rotates_is_read_again(secure: Kubelet, tmp_path: Path) -> None:
    client = KubeletClient(secure.url, settings(tmp_path))
    client.fetch()
    secure.token = "renewed"
    refused = failure(client)
    assert isinstance(refused, Refused)
    assert "401" in str(refused) and "token" in refused.hint
    (tmp_path / "new").write_text("renewed")
    (tmp_path / "new").rename(tmp_path / "token")
    client.fetch()


@needs_openssl
def test_an_authority_that_is_not_ours_gets_no_token(secure: Kubelet, tmp_path: Path) -> None:
    other = Certificates(tmp_path / "other", "other")
    refused = failure(KubeletClient(secure.url, settings(tmp_path, ca_file=str(other.ca))))
    assert isinstance(refused, Refused)
    assert "not trusted" in str(refused) and "kubernetes.ca_file" in refused.hint
    assert secure.tokens == []


@needs_openssl
def test_an_authority_that_rotates_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes swaps the symlink of a projected volume."""
    old, new = Certificates(tmp_path / "1"), Certificates(tmp_path / "2")
    (tmp_path / "data").symlink_to("1")
    certificate = old.server()
    with kubelet(certificate) as server:
        client = KubeletClient(server.url, settings(tmp_path, ca_file=str(tmp_path / "data" / "ca.crt")))
        client.fetch()
        for made, served in zip(new.server(), certificate, strict=True):
            shutil.copy(made, served)
        assert isinstance(failure(client), Refused)
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(tmp_path / "data")
        client.fetch()


@needs_openssl
def test_a_certificate_of_another_name_is_refused_unless_that_name_is_expected(tmp_path: Path) -> None:
    with kubelet(Certificates(tmp_path).server("DNS:node-7")) as server:
        assert "not trusted" in str(failure(KubeletClient(server.url, settings(tmp_path))))
        KubeletClient(server.url, settings(tmp_path, server_name="node-7")).fetch()


@needs_openssl
def test_a_kubelets_own_certificate_may_stand_for_itself(tmp_path: Path) -> None:
    certificate = Certificates(tmp_path).server()
    with kubelet(certificate) as server:
        KubeletClient(server.url, settings(tmp_path, ca_file=str(certificate[0]))).fetch()


@needs_openssl
def test_verification_is_skipped_only_when_that_is_asked_for(secure: Kubelet, tmp_path: Path) -> None:
    nowhere = settings(tmp_path, ca_file=str(tmp_path / "none"), insecure_skip_verify=True)
    KubeletClient(secure.url, nowhere).fetch()


@needs_openssl
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("token", "", "not a token"),
        ("token", "a b\r\nX: y", "not a token"),
        ("ca.crt", "x", "no certificates"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    secure: Kubelet, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    known = settings(tmp_path)
    (tmp_path / name).write_text(text)
    assert expected in str(failure(KubeletClient(secure.url, known)))
    (tmp_path / name).unlink()
    gone = failure(KubeletClient(secure.url, known))
    assert name in str(gone) and gone.hint
    assert secure.tokens == []


def test_the_read_only_port_never_hears_the_token(plain: Kubelet, tmp_path: Path) -> None:
    KubeletClient(plain.url, settings(tmp_path)).fetch()
    assert plain.tokens == [""]


@pytest.mark.parametrize("status", [403, 404, 500, 302])
def test_any_answer_but_200_is_a_refusal(plain: Kubelet, tmp_path: Path, status: int) -> None:
    plain.status = status
    refused = failure(KubeletClient(plain.url, settings(tmp_path)))
    assert isinstance(refused, Refused)
    assert str(status) in str(refused)
    assert ("nodes/proxy" in refused.hint) is (status == 403)


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n",
    ],
)
def test_a_server_that_hangs_up_after_its_answer_is_read_to_the_end(tmp_path: Path, head: str) -> None:
    end = b"\r\n0\r\n\r\n" if "chunked" in head else b""
    with answering(head.format(length=len(V1_34)).encode() + V1_34 + end) as url:
        assert KubeletClient(url, settings(tmp_path)).fetch() == V1_34


def test_what_a_refusal_says_is_shown_only_where_it_is_fit_for_a_terminal(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 500 \x1b[2Jcleared\r\nContent-Length: 0\r\n\r\n") as url:
        assert str(failure(KubeletClient(url, settings(tmp_path)))) == f"{url}/pods: 500"


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that answers one request so, and hangs up."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_an_answer_that_ends_early_is_no_answer(plain: Kubelet, tmp_path: Path) -> None:
    plain.body, plain.announce = V1_34[:1000], len(V1_34)
    cut = failure(KubeletClient(plain.url, settings(tmp_path)))
    assert isinstance(cut, Garbled)
    assert "early" in str(cut)


def test_an_answer_of_20_mib_is_not_read(plain: Kubelet, tmp_path: Path) -> None:
    plain.body = b" " * (20 << 20)
    client = KubeletClient(plain.url, settings(tmp_path))
    assert isinstance(failure(client), Garbled)
    plain.announce = MAX_ANSWER_BYTES
    assert len(client.fetch()) == MAX_ANSWER_BYTES, "what was announced, and no more"


@pytest.mark.parametrize("how", ["hangs", "drips"])
def test_a_kubelet_that_is_slow_is_given_up_in_time(plain: Kubelet, tmp_path: Path, how: str) -> None:
    if how == "hangs":
        plain.hang.set()
    plain.drip_s = 0.02
    plain.body = b" " * 10_000
    begin = time.monotonic()
    slow = failure(KubeletClient(plain.url, settings(tmp_path, timeout_s=0.5)))
    assert isinstance(slow, Failed)
    assert "0.5 s" in str(slow)
    assert time.monotonic() - begin < 5.0


def test_nobody_there_and_somebody_who_speaks_something_else(tmp_path: Path, plain: Kubelet) -> None:
    gone = failure(KubeletClient("http://127.0.0.1:1", settings(tmp_path)))
    assert isinstance(gone, Failed) and gone.hint
    tls = plain.url.replace("http:", "https:")
    (tmp_path / "ca.crt").write_text("")
    assert isinstance(
        failure(KubeletClient(tls, settings(tmp_path, insecure_skip_verify=True))), Failed | Garbled
    )


def test_who_could_pass_for_the_kubelet_is_known() -> None:
    careless = KubernetesSettings(insecure_skip_verify=True)
    assert "not verified" in unverified("https://node-7:10250", careless)
    assert "plain HTTP" in unverified("http://node-7:10255", KubernetesSettings())
    for url in ("https://node-7:10250", "http://127.0.0.1:10255", "http://[::1]:10255"):
        assert unverified(url, KubernetesSettings()) == ""


def test_where_the_kubelet_is_looked_for(tmp_path: Path) -> None:
    known = settings(tmp_path)
    assert kubelet_url(known, {}) == "https://127.0.0.1:10250"
    assert kubelet_url(known, {"NODE_IP": "10.0.4.7"}) == "https://10.0.4.7:10250"
    assert kubelet_url(known, {"NODE_IP": "fd00::7"}) == "https://[fd00::7]:10250"
    none = KubernetesSettings(token_file=str(tmp_path / "none"))
    assert kubelet_url(none, {"NODE_IP": "10.0.4.7"}) == "http://127.0.0.1:10255"
    assert kubelet_url(KubernetesSettings(kubelet_url="https://node-7:1/"), {}) == "https://node-7:1"
