"""GET /pods of the kubelet: over https with the service account's token, or from the read-only port.

Invariants: the token goes nowhere but over TLS, and is in no message; an answer is bounded in size and in
time, however slowly it drips. Token and CA are read anew, since both rotate.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from nodeagent.model.errors import Failed, Garbled, Refused
from nodeagent.model.kubernetes import KubernetesSettings

MAX_ANSWER_BYTES = 16 << 20
MAX_TOKEN_BYTES = 64 << 10
PATH = "/pods"
_CHUNK_BYTES = 256 << 10
_HINTS = {
    401: "is kubernetes.token_file the token of a service account, and does the kubelet ask the API server "
    "(--authentication-token-webhook)?",
    403: "let the service account `get` nodes/proxy (since Kubernetes 1.33 nodes/pods is enough)",
}


def kubelet_url(settings: KubernetesSettings, env: Mapping[str, str]) -> str:
    """Where the kubelet is: as configured, else https where there is a token, else the read-only port."""
    if settings.kubelet_url:
        return settings.kubelet_url.rstrip("/")
    if os.path.exists(settings.token_file):
        node = env.get("NODE_IP", "") or "127.0.0.1"
        return f"https://[{node}]:10250" if ":" in node else f"https://{node}:10250"
    return "http://127.0.0.1:10255"


def unverified(url: str, settings: KubernetesSettings) -> str:
    """Why whoever answers at `url` may be somebody else; "" when that cannot be."""
    where = urlsplit(url)
    if where.scheme == "https" and settings.insecure_skip_verify:
        return f"{url}: its certificate is not verified, and whoever answers gets the token"
    if where.scheme == "http" and (where.hostname or "") not in ("127.0.0.1", "::1", "localhost"):
        return f"{url} is plain HTTP over a network, where anybody could tell of pods"
    return ""


class KubeletClient:
    """Asks one kubelet; for one thread. `settings` say how, `url` where ("https://HOST:PORT")."""

    def __init__(self, url: str, settings: KubernetesSettings) -> None:
        self.url = url
        self._settings = settings
        where = urlsplit(url)
        self._secure = where.scheme == "https"
        self._host = where.hostname or ""
        self._port = where.port or (10250 if self._secure else 10255)
        self._context: ssl.SSLContext | None = None
        self._stamp: tuple[int, int, int] | None = None

    def fetch(self) -> bytes:
        """The whole answer; AgentError, with a hint, when there is none."""
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            return self._fetch(deadline)
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or str(error)
            raise Refused(f"{self.url}: its certificate is not trusted: {why}", hint=_TRUST) from None
        except TimeoutError:
            raise Failed(f"{self.url}: no whole answer within {self._settings.timeout_s:g} s") from None
        except OSError as error:
            raise Failed(f"{self.url}: {error.strerror or error}", hint=_REACH) from None
        except (http.client.HTTPException, ValueError) as error:
            raise Garbled(f"{self.url}: not HTTP: {type(error).__name__}") from None

    def _fetch(self, deadline: float) -> bytes:
        headers = {"Accept": "application/json", "User-Agent": "nodeagent"}
        if self._secure:
            headers["Authorization"] = f"Bearer {self._token()}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._settings.timeout_s)
        connection.sock = timed = self._connected(deadline)
        try:
            connection.request("GET", PATH, headers=headers)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                hint = _HINTS.get(answer.status, "")
                reason = answer.reason[:80] if answer.reason.isprintable() else ""
                raise Refused(f"{self.url}{PATH}: {answer.status} {reason}".rstrip(), hint=hint)
            return self._body(answer)
        finally:
            timed.hang_up()

    def _connected(self, deadline: float) -> _Timed:
        plain = socket.create_connection((self._host, self._port), self._settings.timeout_s)
        if not self._secure:
            return _Timed(plain, deadline)
        try:
            plain.settimeout(_left_s(deadline))
            name = self._settings.server_name or self._host
            return _Timed(self._tls().wrap_socket(plain, server_hostname=name), deadline)
        except BaseException:
            plain.close()
            raise

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        if (answer.length or 0) > MAX_ANSWER_BYTES:
            raise Garbled(f"{self.url}{PATH}: announces {answer.length} bytes, more than {MAX_ANSWER_BYTES}")
        parts: list[bytes] = []
        size = 0
        while part := answer.read1(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise Garbled(f"{self.url}{PATH}: longer than {MAX_ANSWER_BYTES} bytes")
        if answer.length:
            raise Garbled(f"{self.url}{PATH}: ends {answer.length} bytes early")
        return b"".join(parts)

    def _token(self) -> str:
        path = self._settings.token_file
        try:
            with open(path, "rb") as file:
                token = file.read(MAX_TOKEN_BYTES + 1).strip()
        except OSError as error:
            raise Failed(f"{path}: {error.strerror}", hint="kubernetes.token_file names the token") from None
        if not token or len(token) > MAX_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in token):
            raise Garbled(f"{path}: not a token")
        return token.decode("ascii")

    def _tls(self) -> ssl.SSLContext:
        """The context, made anew when the CA file was replaced."""
        if self._settings.insecure_skip_verify:
            self._context = self._context or _unverified()
            return self._context
        path = self._settings.ca_file
        try:
            found = os.stat(path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._context is None or stamp != self._stamp:
                context = ssl.create_default_context(cafile=path)
                # the kubelet's own certificate may stand for itself, as `--cacert` takes it
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                self._context, self._stamp = context, stamp
        except ssl.SSLError:
            raise Garbled(f"{path}: no certificates in PEM form", hint=_TRUST) from None
        except OSError as error:
            raise Failed(f"{path}: {error.strerror}", hint=_TRUST) from None
        return self._context


class _Timed:
    """A connected socket for http.client that ends every wait at one deadline."""

    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(_left_s(self._deadline))
        self._inner.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._inner, self._deadline))

    def close(self) -> None:
        """Where the server will hang up, http.client does so before it has read the answer: not yet."""

    def hang_up(self) -> None:
        self._inner.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._inner.settimeout(_left_s(self._deadline))
        return self._inner.recv_into(buffer)


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TRUST = (
    "kubernetes.ca_file names who signs it, kubernetes.server_name the name in it; a kubelet without "
    "serverTLSBootstrap signs its own: ca_file = /var/lib/kubelet/pki/kubelet.crt of the host"
)
_REACH = "is the kubelet running, and kubernetes.kubelet_url right?"
