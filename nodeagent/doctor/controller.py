"""Does the controller answer, and with a certificate that the agent will accept?"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.model.controller import ControllerSettings, Where, where

LIMIT_S = 5.0
NAME = "controller"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # the client's preface and empty SETTINGS
HUNG_UP = "hung up"
FILES = "controller.tls_ca, tls_cert and tls_key: are they readable, and do they belong together?"


def controller(host: Host) -> Iterator[Finding]:
    """Asked for real: a connection, the handshake, and the first frame of HTTP/2."""
    settings = host.config.settings.controller
    place = where(settings.address)
    if place is None:
        yield Finding(NAME, Status.INFO, "none: controller.address is not set")
        return
    try:
        context = _context(settings) if settings.tls_ca else None
    except OSError as error:  # also those of ssl
        why = f"the files of TLS cannot be used: {error.strerror or error}"
        yield Finding(NAME, Status.WARN, why, FILES)
        return
    try:
        found = _greeted(settings, place, context)
    except ssl.SSLError as error:
        yield Finding(NAME, Status.WARN, f"{settings.address}: TLS: {_told(error)}", _tls_fix(error))
    except TimeoutError:
        why = f"{settings.address}: nothing heard for {LIMIT_S:g} s"
        yield Finding(NAME, Status.WARN, why, "is it a gRPC server, and does a firewall let it answer?")
    except OSError as error:
        why = f"{settings.address}: {error.strerror or error}"
        yield Finding(NAME, Status.WARN, why, _fix(str(error), tls=context is not None))
    else:
        yield Finding(NAME, Status.OK, f"{settings.address} answers, {found}")


def _context(settings: ControllerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.tls_ca)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    context.set_alpn_protocols(["h2"])
    return context


def _greeted(settings: ControllerSettings, place: Where, context: ssl.SSLContext | None) -> str:
    """What protects the connection, after the other side has spoken HTTP/2."""
    with _connected(place) as plain:
        plain.settimeout(LIMIT_S)
        if context is None:
            _expect_http2(plain)
            return "plain"
        with context.wrap_socket(plain, server_hostname=settings.server_name or place.host) as secure:
            _expect_http2(secure)  # only now is it known whether our certificate is taken
            certificate = secure.getpeercert() or {}
            return f"{secure.version()}, certificate valid until {certificate.get('notAfter')}"


def _connected(place: Where) -> socket.socket:
    if place.port:
        return socket.create_connection((place.host, place.port), LIMIT_S)
    unix = socket.socket(socket.AF_UNIX)
    unix.settimeout(LIMIT_S)
    try:
        unix.connect(place.target.removeprefix("unix:"))
    except OSError:
        unix.close()
        raise
    return unix


def _expect_http2(connection: socket.socket) -> None:
    connection.sendall(HTTP2)
    head = connection.recv(9)
    if len(head) < 4 or head[3] != 4:  # the type of a SETTINGS frame
        raise OSError(f"speaks no HTTP/2: {head!r}" if head else HUNG_UP)


def _fix(why: str, *, tls: bool) -> str:
    if why != HUNG_UP:
        return "is it running? the agent works without it, and goes on trying"
    if tls:
        return "the controller must trust who signed controller.tls_cert, and the names in it"
    return "does it want TLS? then set controller.tls_ca, tls_cert and tls_key"


def _told(error: ssl.SSLError) -> str:
    reason = getattr(error, "verify_message", "") or error.reason or str(error)
    return str(reason).lower().replace("_", " ")


def _tls_fix(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "controller.tls_ca must have signed its certificate, and that must have controller.server_name"
    return "does the controller trust who signed controller.tls_cert, and does it speak TLS?"


CONTROLLER: tuple[Check, ...] = (controller,)
