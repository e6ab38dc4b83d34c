"""Certificate, key and CAs from files, for servers and clients; read again when the files change.

Invariant: only a key that fits its certificate, and CAs that parse, come into use, and a certificate that
is not valid only when the one before is not either; until then these stay, which is told once. Private keys
never reach a log.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import grpc

from nodeagent.model.errors import AgentError, Failed
from nodeagent.model.rpc_told import News
from nodeagent.rpc.x509 import certificates, validity_unix

MAX_PEM_BYTES = 1 << 20
DAY_S = 86_400.0
WARN_RATIOS = (0.2, 0.05, 0.0)  # of its life are left: each is told once. Renewal is due at a third or a half

Signature = tuple[tuple[int, int, int, int] | None, ...]


class TlsFiles(NamedTuple):
    """PEM files: a certificate (and those between it and its CA), its key, and the CAs of peers."""

    certificate: str
    key: str
    ca: str


class Material(NamedTuple):
    """What the files held when they fitted; `cas` in DER, the times of the first certificate."""

    certificate: bytes
    key: bytes
    ca: bytes
    cas: frozenset[bytes]
    not_before_unix: float
    not_after_unix: float

    def valid(self, now_unix: float) -> bool:
        """Whether the certificate is, at this time."""
        return self.not_before_unix <= now_unix <= self.not_after_unix


class Identity:
    """Who this process is to its peers, and whom it trusts. For any thread.

    Made from files that must be good: Failed with what to do when they are not.
    """

    def __init__(self, files: TlsFiles, now: Callable[[], float] = time.time) -> None:
        self.files = files
        self.news: deque[News] = deque(maxlen=32)
        self.complaint = ""  # why what the files hold now is not in use
        self._lock = threading.Lock()
        self._now = now
        self._seen = _signature(files)
        self.material = load(files)
        self._served = self.material
        self._warned = len(WARN_RATIOS)
        self._warn()

    @property
    def left_s(self) -> float:
        """Seconds for which the certificate is still valid, negative after its end."""
        return self.material.not_after_unix - self._now()

    def refresh(self) -> bool:
        """Take what the files hold now; True when that is new and good. Cheap when nothing has changed."""
        with self._lock:
            changed = self._changed()
            self._warn()
            return changed

    def server_credentials(self) -> grpc.ServerCredentials:
        """For add_secure_port: each handshake uses what the files hold then, and wants a certificate."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._served), self._fetch, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For secure_channel. A channel keeps them: make a new one when `refresh()` tells True."""
        held = self.material
        return grpc.ssl_channel_credentials(held.ca, held.key, held.certificate)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC before each handshake, in a thread of its own, one at a time.
        self.refresh()
        held = self.material
        if held is self._served:
            return None
        self._served = held
        return _configuration(held)

    def _changed(self) -> bool:
        signature = _signature(self.files)
        if signature == self._seen and not self.complaint:
            return False
        try:
            found = load(self.files)
            self._refuse_for_worse(found)
        except AgentError as error:
            if str(error) != self.complaint:
                self.complaint = str(error)
                self._tell("tls.refused", "warning", why=str(error), hint=error.hint)
            return False
        self._seen, self.complaint = (
            signature,
            "",
        )  # the signature from before the reading: later changes show
        if found == self.material:
            return False
        lost = len(self.material.cas - found.cas)
        self.material, self._warned = found, len(WARN_RATIOS)
        self._tell("tls.reloaded", "info", days_left=self._days(), cas=len(found.cas), cas_removed=lost)
        return True

    def _refuse_for_worse(self, found: Material) -> None:
        """While the certificate in use is valid, only another valid one takes its place."""
        now = self._now()
        if found.valid(now) or not self.material.valid(now):
            return
        since, until = (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix))
            for unix in (found.not_before_unix, found.not_after_unix)
        )
        raise Failed(
            f"{self.files.certificate}: is valid from {since} to {until} UTC, which is not now",
            hint="the one before is kept as long as it is valid; is the clock right?",
        )

    def _warn(self) -> None:
        """Tell when the certificate comes one step closer to its end."""
        life_s = max(0.0, self.material.not_after_unix - self.material.not_before_unix)
        step = sum(self.left_s > ratio * life_s for ratio in WARN_RATIOS)
        if step < self._warned:
            event = "tls.expires" if self.left_s > 0 else "tls.expired"
            self._tell(event, "warning", days_left=self._days(), certificate=self.files.certificate)
        self._warned = step

    def _days(self) -> float:
        return round(self.left_s / DAY_S, 1)

    def _tell(self, event: str, level: str, **keys: object) -> None:
        self.news.append(News(event, level, keys))


def load(files: TlsFiles) -> Material:
    """Read and check all three; Failed, naming the file and what to do, when they cannot be used."""
    certificate, key, ca = (_read(path) for path in files)
    _check_pair(files, certificate, key)
    try:
        found = certificates(ca)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=b"".join(found))
        cas = frozenset(found)
    except (ssl.SSLError, ValueError, AgentError):
        raise Failed(f"{files.ca}: holds no CA certificates in PEM", hint="concatenate them there") from None
    try:
        valid = validity_unix(certificates(certificate)[0])
    except (AgentError, IndexError):
        raise Failed(
            f"{files.certificate}: its first certificate cannot be read", hint="is it PEM?"
        ) from None
    return Material(certificate, key, ca, cas, *valid)


def _check_pair(files: TlsFiles, certificate: bytes, key: bytes) -> None:
    """OpenSSL's own opinion of the bytes that were read: the files may be others by now."""
    try:
        with open(os.memfd_create("nodeagent-tls", os.MFD_CLOEXEC), "wb") as file:
            file.write(key + b"\n" + certificate)
            file.flush()
            path = f"/proc/self/fd/{file.fileno()}"
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=_no_password)
    except (ssl.SSLError, ValueError):
        raise Failed(
            f"{files.key} is not the key of {files.certificate}, or one of them is not PEM",
            hint="a certificate and its key, without a password; if they are being replaced, this passes",
        ) from None
    except OSError as error:
        raise Failed(
            f"{files.certificate} cannot be checked: {error.strerror}", hint="has the agent descriptors left?"
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # instead of asking on the terminal


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", hint="PEM files that the agent may read") from None
    if len(data) > MAX_PEM_BYTES:
        raise Failed(
            f"{path}: larger than {MAX_PEM_BYTES >> 20} MiB", hint="one certificate, key or CA bundle"
        )
    return data


def _signature(files: TlsFiles) -> Signature:
    """Changes when a file is written, replaced, or reached by another symlink (..data of Kubernetes)."""
    return tuple(_stamp(path) for path in files)


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _configuration(held: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)], held.ca)
