"""Rules between the keys of [controller]."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.controller import ControllerSettings, where

TLS = ("tls_ca", "tls_cert", "tls_key")


def controller(settings: ControllerSettings) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for each rule that is broken."""
    if settings.backoff_max_s < settings.backoff_s:
        yield (
            "controller.backoff_max_s",
            f"= {settings.backoff_max_s:g} is shorter than controller.backoff_s = {settings.backoff_s:g}",
        )
    if settings.heartbeat_s < settings.report_s:
        yield (
            "controller.heartbeat_s",
            f"= {settings.heartbeat_s:g} is shorter than controller.report_s = {settings.report_s:g}",
        )
    given = [key for key in TLS if getattr(settings, key)]
    missing = [key for key in TLS if key not in given]
    for key in given:
        if not getattr(settings, key).startswith("/"):
            yield f"controller.{key}", f'takes an absolute path, found "{getattr(settings, key)}"'
    if given and missing:
        yield f"controller.{given[0]}", f"needs controller.{missing[0]} too"
    if settings.server_name and not given:
        yield "controller.server_name", f"is for TLS, which needs {', '.join(TLS)}"
    if settings.address:
        yield from _address(settings.address, tls=bool(given))
        place = where(settings.address)
        if settings.directives and place is not None and place.port and not given:
            needs = f"needs {', '.join(TLS)} or a unix socket: over plain TCP nobody proves who it is"
            yield "controller.directives", needs


def _address(address: str, *, tls: bool) -> Iterator[tuple[str, str]]:
    place = where(address)
    if place is None:
        yield "controller.address", f'takes HOST:PORT, [IPv6]:PORT, unix:/path or "", found "{address}"'
    elif not place.local and not tls:
        yield (
            "controller.address",
            f'is not on loopback, so it needs TLS: set {", ".join(TLS)}, found "{address}"',
        )
    elif not place.port and tls:
        yield "controller.address", f'is a unix socket, which takes no {", ".join(TLS)}, found "{address}"'
